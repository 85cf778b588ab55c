import { useTranslation } from 'react-i18next'
import { Link } from '@fluentui/react-components'
import type { Machine } from '../../../api/machines'
import { useName } from '../../../i18n/names'
import { Ago } from '../../../ui/marks'
import type { Column } from '../../../ui/Table'
import { MachineStatus } from './status'

export const tagText = (tags: { key: string; value: string }[]) => tags.map((tag) => `${tag.key}=${tag.value}`).join(', ')

/** The columns of a list of machines. */
export function useMachineColumns(open: (machine: Machine) => void): Column<Machine>[] {
  const { t } = useTranslation()
  const name = useName()
  return [
    { id: 'name', header: t('machine.name'), min: 170, grow: 2, sort: 'name', cell: (m) => <Link as="button" onClick={() => open(m)} title={m.name} data-testid="machine-open">{m.name}</Link> },
    { id: 'state', header: t('machine.state'), min: 250, grow: 5, sort: 'state', cell: (m) => <MachineStatus extension={m.extension} testid="machine-state" /> },
    { id: 'os', header: t('machine.os'), min: 130, grow: 2, cell: (m) => <span title={m.os}>{m.os}</span> },
    { id: 'address', header: t('machine.address'), min: 120, grow: 1, cell: (m) => <span title={m.address}>{m.address}</span> },
    { id: 'connector', header: t('machine.connector'), min: 110, grow: 1, cell: (m) => m.connector?.name ?? name('machineSource', m.source) },
    { id: 'tags', header: t('machine.tags'), min: 90, grow: 1, cell: (m) => <span title={tagText(m.tags)}>{tagText(m.tags)}</span> },
    { id: 'plan', header: t('machine.plan'), min: 70, cell: (m) => name('plan', m.plan.effective) },
    { id: 'since', header: t('machine.since'), min: 110, sort: 'since', cell: (m) => <Ago time={m.extension.since} /> },
  ]
}
