import { Link } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { DeviceEvent } from '../api/types'
import { useEventText } from '../i18n/eventText'
import { useFormat, useName } from '../i18n/names'
import type { Column } from './Table'

/** The columns of every list of events. */
export function useEventColumns(open: (event: DeviceEvent) => void): Column<DeviceEvent>[] {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const text = useEventText()
  return [
    { id: 'time', header: t('event.time'), min: 190, cell: (e) => <time dateTime={e.time}>{format.exact(e.time)}</time> },
    { id: 'action', header: t('event.action'), min: 190, cell: (e) => <Link as="button" onClick={() => open(e)} title={name('action', e.action)}>{name('action', e.action)}</Link> },
    { id: 'summary', header: t('event.what'), min: 260, grow: 4, cell: (e) => <span title={text(e)}>{text(e)}</span> },
    { id: 'initiator', header: t('event.initiator'), min: 130, grow: 1, cell: (e) => <span title={e.initiator?.path}>{e.initiator?.name}</span> },
    { id: 'user', header: t('event.user'), min: 100, cell: (e) => e.initiator?.user?.name ?? e.process?.user?.name ?? '' },
  ]
}
