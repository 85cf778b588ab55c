import { Button, Checkbox, makeStyles, Text, tokens } from '@fluentui/react-components'
import { DismissRegular } from '@fluentui/react-icons/svg/dismiss'
import { ServerRegular } from '@fluentui/react-icons/svg/server'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useSearchParams } from 'react-router'
import { listConnectors } from '../../../api/connectors'
import { changeMachine, deployMachine, listMachines, machineFilters, offboardMachine, type Machine, type MachineQuery, type Onboarding, type PlanChoice } from '../../../api/machines'
import { useRows } from '../../../api/rows'
import { useData } from '../../../api/use'
import { useMay } from '../../../app/session'
import { useNotify } from '../../../app/toast'
import { useFormat, useName } from '../../../i18n/names'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../../../ui/Filters'
import { RowTable } from '../../../ui/PagedTable'
import { useReason } from '../../../ui/reasons'
import { Empty, useErrorText } from '../../../ui/states'
import type { Column } from '../../../ui/Table'
import { Views } from '../../../ui/Views'
import { useBulk, type Bulk } from './bulk'
import { useMachineColumns } from './columns'
import { MachinePanel } from './MachinePanel'
import { OffboardDialog, PlanDialog } from './dialogs'

const useStyles = makeStyles({
  chosen: {
    display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalS, padding: '6px 12px', minHeight: '36px',
    backgroundColor: tokens.colorNeutralBackground1Selected, borderRadius: tokens.borderRadiusMedium,
  },
  end: { marginLeft: 'auto' },
})

const views = ['all', 'succeeded', 'failed', 'creating', 'waiting', 'not_applicable', 'none', 'removing', 'gone'] as const
/** Views that are there only while they have something to show. */
const passing: readonly string[] = ['removing']
const plans = ['P2', 'P1', 'off']
const pageSize = 1_000

interface Props {
  environment: string
  /** Counts and reasons; undefined while they are on their way. */
  onboarding: Onboarding | undefined
  /** Opens the way to know machines. */
  connect: () => void
}

/** Every machine that an environment knows, and what is done with many of them at once. */
export default function MachinesTab({ environment, onboarding, connect }: Props) {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const reasonText = useReason()
  const mayPlan = useMay('plans.manage')
  const mayDeploy = useMay('devices.manage')
  const [parameters, setParameters] = useSearchParams()
  const [q, setQ] = useFilter('q')
  const [state] = useFilter('state')
  const [reason, setReason] = useFilter('reason')
  const [connector, setConnector] = useFilter('connector')
  const [tag, setTag] = useFilter('tag')
  const [plan, setPlan] = useFilter('plan')
  const [sort, setSort] = useFilter('sort')
  const [machine, setMachine] = useFilter('machine')
  const connectors = useData(`connectors ${environment}`, (signal) => listConnectors(environment, signal), ['connector'])
  const [chosen, setChosen] = useState<ReadonlyMap<string, Machine>>(new Map())
  const [asking, setAsking] = useState<'plan' | 'offboard'>()
  const bulk = useBulk()

  const query: MachineQuery = {}
  for (const filter of machineFilters) query[filter] = parameters.get(filter) ?? ''
  const key = `${environment} ${JSON.stringify(query)}`
  const rows = useRows(key, (page, signal) => listMachines({ environment, ...query, ...page }, signal), ['machine', 'plan', 'onboarding', 'connector'])

  const counts = onboarding?.counts
  const ofView: Record<string, number | undefined> = {
    all: counts?.machines, succeeded: counts?.protected, failed: counts?.failed, creating: counts?.creating, waiting: counts?.waiting, not_applicable: counts?.not_applicable,
    none: counts?.none, removing: counts?.removing,
  }
  const setView = (next: string) => setParameters((old) => {
    const to = new URLSearchParams(old)
    to.delete('reason')
    if (next === 'all') to.delete('state')
    else to.set('state', next)
    return to
  }, { replace: true })
  const filtered = machineFilters.some((id) => id !== 'sort' && (parameters.get(id) ?? '') !== '')
  const clear = () => setParameters((old) => {
    const to = new URLSearchParams(old)
    for (const id of machineFilters) {
      if (id !== 'sort') to.delete(id)
    }
    return to
  }, { replace: true })

  const reasons = [...new Set((onboarding?.reasons ?? []).filter((r) => state === '' || r.state === state).map((r) => r.id))]
  const reasonChoices = reasons.map((id) => {
    const known = onboarding?.reasons.filter((r) => r.id === id && (state === '' || r.state === state)) ?? []
    return { value: id, label: t('machine.counted', { value: reasonText(known[0]!).text, number: format.number(known.reduce((n, r) => n + r.count, 0)) }) }
  })
  if (reason !== '' && !reasons.includes(reason)) reasonChoices.push({ value: reason, label: reasonText({ id: reason, text: reason, remedy: '' }).text })
  const connectorChoices = [...(connectors.data?.items ?? []).map((c) => ({ value: c.id, label: c.name })), { value: 'none', label: t('machine.noConnector') }]

  const choose = (m: Machine, on: boolean) => setChosen((old) => {
    const next = new Map(old)
    if (on) next.set(m.id, m)
    else next.delete(m.id)
    return next
  })
  const chooseAll = async () => {
    const next = new Map<string, Machine>()
    let cursor = ''
    do {
      const page = await listMachines({ environment, ...query, cursor, limit: pageSize })
      for (const m of page.items) next.set(m.id, m)
      cursor = page.next ?? ''
    } while (cursor !== '')
    setChosen(next)
  }
  const all = rows.total > 0 && chosen.size >= rows.total
  const select: Column<Machine> = {
    id: 'select', header: t('machine.select'), min: 56,
    head: (
      <Checkbox
        checked={chosen.size === 0 ? false : all ? true : 'mixed'} aria-label={t('machine.selectAll')} data-testid="select-all"
        onChange={(_, d) => (d.checked === true ? void chooseAll().catch((e: unknown) => notify('error', t('machine.failed'), errorText(e))) : setChosen(new Map()))}
      />
    ),
    cell: (m) => <Checkbox checked={chosen.has(m.id)} aria-label={t('machine.selectOne', { name: m.name })} onChange={(_, d) => choose(m, d.checked === true)} data-testid="select-row" />,
  }
  const own = useMachineColumns((m) => setMachine(m.id))
  const columns = mayPlan || mayDeploy ? [select, ...own] : own

  const told = (done: Bulk, text: string) => {
    if (done.failed === 0) {
      notify('success', text)
      setChosen(new Map())
    } else {
      notify('error', t('machine.notAll', { failed: format.number(done.failed), total: format.number(done.total) }), errorText(done.error))
    }
    rows.reload()
  }
  const list = [...chosen.values()]
  const number = format.number(list.length)
  const retry = () => void bulk.run(list, (m) => deployMachine(m.id)).then((done) => told(done, t('machine.deploying', { count: done.total, number })))
  const offboard = (why: string) => {
    setAsking(undefined)
    void bulk.run(list, (m) => offboardMachine(m.id, why)).then((done) => told(done, t('machine.offboarding', { count: done.total, number })))
  }
  const setPlans = (to: PlanChoice) => {
    setAsking(undefined)
    void bulk.run(list, (m) => changeMachine(m.id, { version: m.version, plan: to })).then((done) => told(done, t('machine.planSaved', { count: done.total, number })))
  }
  return (
    <>
      <Views
        label={t('machine.state')} testid="machines" current={state === '' ? 'all' : state} choose={setView}
        views={views.filter((id) => !passing.includes(id) || (ofView[id] ?? 0) > 0 || state === id).map((id) => ({ id, label: id === 'all' ? t('machine.all') : name('machineState', id), count: ofView[id] }))}
      />
      {list.length === 0 ? (
        <FilterBar count={rows.loading ? undefined : t('list.count', { count: rows.total, number: format.number(rows.total) })}>
          <SearchFilter label={t('machine.search')} value={q} set={setQ} testid="machine-search" />
          {(reasonChoices.length > 0 || reason !== '') && <SelectFilter label={t('machine.reason')} value={reason} set={setReason} all={t('list.all')} choices={reasonChoices} />}
          <SelectFilter label={t('machine.connector')} value={connector} set={setConnector} all={t('list.all')} choices={connectorChoices} />
          <SelectFilter label={t('machine.plan')} value={plan} set={setPlan} all={t('list.all')} choices={plans.map((value) => ({ value, label: name('plan', value) }))} />
          <SearchFilter label={t('machine.searchTag')} value={tag} set={setTag} testid="machine-tag" short />
          {filtered && <Button appearance="transparent" onClick={clear} data-testid="clear-filters">{t('machine.clear')}</Button>}
        </FilterBar>
      ) : (
        <Chosen
          count={list.length} bulk={bulk} clear={() => setChosen(new Map())}
          plan={mayPlan ? () => setAsking('plan') : undefined} retry={mayDeploy ? retry : undefined} offboard={mayDeploy ? () => setAsking('offboard') : undefined}
        />
      )}
      <RowTable
        rows={rows} label={t('environment.machines')} columns={columns} rowTestid="machine-row" open={(m) => setMachine(m.id)}
        order={{ value: sort === '' ? 'name' : sort, set: (value) => setSort(value === 'name' ? '' : value) }}
        empty={filtered
          ? <Empty icon={<ServerRegular />} title={t('list.noMatch')} action={<Button onClick={clear}>{t('machine.clear')}</Button>}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<ServerRegular />} title={t('machine.none')} action={<Button appearance="primary" onClick={connect} data-testid="machines-connect">{t('machine.toConnectors')}</Button>}>{t('machine.noneText')}</Empty>}
      />
      {machine !== '' && <MachinePanel key={machine} id={machine} close={() => setMachine('')} />}
      {asking === 'plan' && <PlanDialog count={list.length} save={setPlans} close={() => setAsking(undefined)} />}
      {asking === 'offboard' && <OffboardDialog names={list.map((m) => m.name)} offboard={offboard} close={() => setAsking(undefined)} />}
    </>
  )
}

interface ChosenProps {
  count: number
  bulk: ReturnType<typeof useBulk>
  clear: () => void
  plan?: () => void
  retry?: () => void
  offboard?: () => void
}

/** What can be done with the machines that are chosen. */
function Chosen({ count, bulk, clear, plan, retry, offboard }: ChosenProps) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const { progress } = bulk
  return (
    <div className={styles.chosen} data-testid="machines-chosen">
      <Text weight="semibold" role="status">
        {progress ? t('machine.progress', { done: format.number(progress.done), total: format.number(progress.total) }) : t('machine.chosen', { count, number: format.number(count) })}
      </Text>
      {progress ? <Button size="small" onClick={bulk.stop}>{t('machine.stop')}</Button> : (
        <>
          {plan && <Button size="small" onClick={plan} data-testid="bulk-plan">{t('machine.setPlan')}</Button>}
          {retry && <Button size="small" onClick={retry} data-testid="bulk-deploy">{t('machine.deploy')}</Button>}
          {offboard && <Button size="small" onClick={offboard} data-testid="bulk-offboard">{t('machine.offboard')}</Button>}
          <Button size="small" appearance="subtle" icon={<DismissRegular />} className={styles.end} onClick={clear} data-testid="bulk-clear">{t('machine.unchoose')}</Button>
        </>
      )}
    </div>
  )
}
