import { useTranslation } from 'react-i18next'
import { listAssignees } from '../api/incidents'
import type { QueueQuery } from '../api/calls'
import { useData } from '../api/use'
import { useName, type Family } from '../i18n/names'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from './Filters'
import type { Order } from './Table'

const severities = ['High', 'Medium', 'Low', 'Informational']

interface Queue {
  query: QueueQuery
  /** Names what is asked for. */
  key: string
  filtered: boolean
  order: Order
}

/** What the address says of a queue of alerts or incidents. */
export function useQueue(): Queue {
  const [status] = useFilter('status')
  const [severity] = useFilter('severity')
  const [assignee] = useFilter('assignee')
  const [q] = useFilter('q')
  const [sort, setSort] = useFilter('sort')
  // The newest is first unless somebody wants another order.
  const value = sort === '' ? '-lastActivity' : sort
  const query = { status, severity, assignee, q, sort: value.replace('-', ''), order: value.startsWith('-') ? 'desc' : 'asc' }
  return {
    query, key: JSON.stringify(query), filtered: status !== '' || severity !== '' || assignee !== '' || q !== '',
    order: { value, set: (next) => setSort(next === '-lastActivity' ? '' : next) },
  }
}

/** The filters of a queue. */
export function QueueFilters({ statuses, family, count }: { statuses: string[]; family: Extract<Family, 'alertStatus' | 'incidentStatus'>; count: string | undefined }) {
  const { t } = useTranslation()
  const name = useName()
  const [status, setStatus] = useFilter('status')
  const [severity, setSeverity] = useFilter('severity')
  const [assignee, setAssignee] = useFilter('assignee')
  const [q, setQ] = useFilter('q')
  const { data: people } = useData('assignees', listAssignees)
  const all = t('list.all')
  const names = [...new Set([...(people ?? []), ...(assignee !== '' && assignee !== '-' ? [assignee] : [])])]
  return (
    <FilterBar count={count}>
      <SearchFilter label={t('queue.search')} value={q} set={setQ} testid="queue-search" />
      <SelectFilter label={t('queue.status')} value={status} set={setStatus} all={all} choices={statuses.map((value) => ({ value, label: name(family, value) }))} />
      <SelectFilter label={t('queue.severity')} value={severity} set={setSeverity} all={all} choices={severities.map((value) => ({ value, label: name('severity', value) }))} />
      <SelectFilter label={t('queue.assignee')} value={assignee} set={setAssignee} all={all} choices={[{ value: '-', label: t('manage.nobody') }, ...names.map((value) => ({ value, label: value }))]} />
    </FilterBar>
  )
}
