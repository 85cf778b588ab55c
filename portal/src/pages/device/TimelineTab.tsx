import { TimelineRegular } from '@fluentui/react-icons/svg/timeline'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listTimeline } from '../../api/calls'
import type { DeviceEvent } from '../../api/types'
import { usePaged } from '../../api/use'
import { useName } from '../../i18n/names'
import { useEventColumns } from '../../ui/eventColumns'
import { EventPanel } from '../../ui/EventPanel'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../../ui/Filters'
import { PagedTable } from '../../ui/PagedTable'
import { Empty } from '../../ui/states'
import { groups } from './groups'

/** What happened on a device, newest first. */
export function TimelineTab({ device }: { device: string }) {
  const { t } = useTranslation()
  const name = useName()
  const [group, setGroup] = useFilter('group')
  const [q, setQ] = useFilter('q')
  const [event, setEvent] = useState<DeviceEvent>()
  const columns = useEventColumns(setEvent)
  const action = (groups[group] ?? []).join(',')
  const list = usePaged(`timeline ${device} ${action} ${q}`, (page, signal) => listTimeline(device, { q, action, ...page }, signal), ['device', 'alert'], true)
  const filtered = group !== '' || q !== ''
  return (
    <>
      <FilterBar>
        <SearchFilter label={t('event.search')} value={q} set={setQ} testid="timeline-search" />
        <SelectFilter label={t('event.group')} value={group} set={setGroup} all={t('list.all')} choices={Object.keys(groups).map((value) => ({ value, label: name('source', value) }))} />
      </FilterBar>
      <PagedTable
        list={list} label={t('device.timeline')} columns={columns} rowTestid="timeline-row" open={setEvent}
        empty={filtered
          ? <Empty icon={<TimelineRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<TimelineRegular />} title={t('event.none')}>{t('event.noneText')}</Empty>}
      />
      <EventPanel event={event} close={() => setEvent(undefined)} />
    </>
  )
}
