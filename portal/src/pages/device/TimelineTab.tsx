import { Button, Input, Label, makeStyles, tokens, useId } from '@fluentui/react-components'
import { ArrowUpRegular } from '@fluentui/react-icons/svg/arrow-up'
import { TimelineRegular } from '@fluentui/react-icons/svg/timeline'
import { useCallback, useMemo, useRef, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useTimeline } from '../../api/timeline'
import type { DeviceEvent } from '../../api/types'
import { useFormat, useName } from '../../i18n/names'
import { useEventColumns } from '../../ui/eventColumns'
import { EventPanel } from '../../ui/EventPanel'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../../ui/Filters'
import { Empty, Failure, Loading } from '../../ui/states'
import { rowHeight, Table } from '../../ui/Table'
import { groups } from './groups'

const useStyles = makeStyles({
  jump: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS },
  frame: { position: 'relative', display: 'flex', flexDirection: 'column', flexGrow: 1, minHeight: '160px' },
  pill: { position: 'absolute', top: '44px', left: '50%', transform: 'translateX(-50%)', zIndex: 2, boxShadow: tokens.shadow8 },
})

/** How near to an end of the window the reader comes before more is loaded. */
const near = 40

/** A time as the field for it wants it: local, to the second. */
function local(time: string): string {
  const at = new Date(time)
  if (time === '' || Number.isNaN(at.getTime())) return ''
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19)
}

/** What happened on a device, newest first. */
export function TimelineTab({ device }: { device: string }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const [group, setGroup] = useFilter('group')
  const [q, setQ] = useFilter('q')
  const [at, setAt] = useFilter('at')
  const [event, setEvent] = useState<DeviceEvent>()
  const columns = useEventColumns(setEvent)
  const scroller = useRef<HTMLDivElement>(null)
  const action = (groups[group] ?? []).join(',')
  const query = useMemo(() => ({ q, action }), [q, action])
  const timeline = useTimeline(device, query, at, scroller, rowHeight)
  const { events, older, newer, atHead } = timeline
  const see = useCallback((first: number, last: number) => {
    if (last >= events.length - near) older()
    else if (first < near) newer()
  }, [events, older, newer])
  const filtered = group !== '' || q !== '' || at !== ''
  const pill = timeline.waiting > 0
    ? timeline.waitingMore ? t('timeline.manyNew', { number: format.number(timeline.waiting) }) : t('timeline.new', { count: timeline.waiting, number: format.number(timeline.waiting) })
    : !atHead && !timeline.loading ? t('timeline.toNewest') : ''
  return (
    <>
      <FilterBar>
        <SearchFilter label={t('event.search')} value={q} set={setQ} testid="timeline-search" />
        <SelectFilter label={t('event.group')} value={group} set={setGroup} all={t('list.all')} choices={Object.keys(groups).map((value) => ({ value, label: name('source', value) }))} />
        <Jump key={at} at={at} set={setAt} />
      </FilterBar>
      {events.length === 0
        ? timeline.loading ? <Loading />
          : timeline.error ? <Failure error={timeline.error} retry={timeline.reload} />
            : filtered
              ? <Empty icon={<TimelineRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
              : <Empty icon={<TimelineRegular />} title={t('event.none')}>{t('event.noneText')}</Empty>
        : (
          <div className={styles.frame}>
            {pill !== '' && (
              <Button
                className={styles.pill} appearance="primary" shape="circular" size="small" icon={<ArrowUpRegular />} data-testid="timeline-new"
                onClick={() => (at === '' ? timeline.toHead() : setAt(''))}
              >
                {pill}
              </Button>
            )}
            <span role="status" style={{ position: 'absolute', left: -10_000 }}>{timeline.waiting > 0 ? pill : ''}</span>
            <Table
              label={t('device.timeline')} columns={columns} items={{ total: events.length, at: (i) => events[i], see }} rowId={(e) => e.id}
              rowTestid="timeline-row" open={setEvent} scroller={scroller}
            />
          </div>
        )}
      <EventPanel event={event} close={() => setEvent(undefined)} />
    </>
  )
}

/** Goes to a time. */
function Jump({ at, set }: { at: string; set: (time: string) => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const id = useId()
  const [text, setText] = useState(local(at))
  const valid = text !== '' && !Number.isNaN(new Date(text).getTime())
  return (
    <form
      className={styles.jump}
      onSubmit={(e) => {
        e.preventDefault()
        if (valid) set(new Date(text).toISOString())
      }}
    >
      <Label htmlFor={id}>{t('timeline.jump')}</Label>
      <Input id={id} type="datetime-local" step={1} value={text} onChange={(_, d) => setText(d.value)} input={{ 'data-testid': 'timeline-at' } as object} />
      <Button type="submit" disabledFocusable={!valid} data-testid="timeline-jump">{t('timeline.go')}</Button>
    </form>
  )
}
