import { makeStyles, Switch, Text, tokens } from '@fluentui/react-components'
import { DataTrendingRegular } from '@fluentui/react-icons/svg/data-trending'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { getCoverage, type CoveragePoint } from '../../api/machines'
import { useData } from '../../api/use'
import { useFormat } from '../../i18n/names'
import { FilterBar, SelectFilter, useFilter } from '../../ui/Filters'
import { RouteLink } from '../../ui/links'
import { Moment } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { Empty, Failure, Loading } from '../../ui/states'
import { Table, type Column } from '../../ui/Table'
import { machinesAt } from './at'
import { CoverageChart } from './CoverageChart'
import { useSeries, type Series } from './series'

const useStyles = makeStyles({
  page: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  at: { display: 'flex', flexWrap: 'wrap', alignItems: 'flex-end', gap: `${tokens.spacingVerticalS} ${tokens.spacingHorizontalXXXL}` },
  one: { display: 'flex', flexDirection: 'column', alignItems: 'flex-start' },
  label: { display: 'inline-flex', alignItems: 'center', gap: tokens.spacingHorizontalXS, color: tokens.colorNeutralForeground2 },
  number: { fontSize: tokens.fontSizeHero700, lineHeight: tokens.lineHeightHero700, fontWeight: tokens.fontWeightSemibold, color: tokens.colorNeutralForeground1 },
  time: { color: tokens.colorNeutralForeground3, marginLeft: 'auto' },
})

const spans = [1, 7, 30, 90, 365]

/** How many machines were protected, over time. */
export default function CoverageTab({ environment }: { environment: string }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const series = useSeries()
  const [days, setDays] = useFilter('days')
  const [asTable, setAsTable] = useState(false)
  const [chosen, setChosen] = useState<string>()
  const span = spans.find((n) => String(n) === days) ?? 30
  const { data, error, reload } = useData(`coverage ${environment} ${span}`, (signal) => getCoverage(environment, span, signal), ['machine'], 60_000)
  if (!data) return error ? <Failure error={error} retry={reload} /> : <Loading />
  const points = data.points
  const index = Math.max(0, chosen === undefined ? points.length - 1 : points.findIndex((p) => p.at === chosen))
  const point = points[index]
  const columns: Column<CoveragePoint>[] = [
    { id: 'at', header: t('coverageTime.time'), min: 200, grow: 1, cell: (p) => <Moment time={p.at} /> },
    ...series.map((s): Column<CoveragePoint> => ({ id: s.key, header: s.label, min: 130, grow: 1, cell: (p) => <RouteLink to={machinesAt(environment, s.query)} title={s.label}>{format.number(p[s.key])}</RouteLink> })),
  ]
  return (
    <div className={styles.page}>
      <FilterBar>
        <SelectFilter
          label={t('coverageTime.span')} value={span === 30 ? '' : String(span)} set={setDays} all={t('coverageTime.days', { count: 30, number: format.number(30) })}
          choices={spans.filter((n) => n !== 30).map((n) => ({ value: String(n), label: t('coverageTime.days', { count: n, number: format.number(n) }) }))}
        />
        <Switch label={t('coverageTime.asTable')} checked={asTable} onChange={(_, d) => setAsTable(d.checked)} data-testid="coverage-as-table" />
      </FilterBar>
      {!point ? <Empty icon={<DataTrendingRegular />} title={t('coverageTime.none')}>{t('coverageTime.noneText')}</Empty>
        : asTable ? <Table compact label={t('environment.coverage')} columns={columns} items={points.toReversed()} rowId={(p) => p.at} rowTestid="coverage-row" />
          : (
            <Panel title={t('coverageTime.title')}>
              <div className={styles.at} data-testid="coverage-at">
                {series.map((s) => <At key={s.key} series={s} value={point[s.key]} environment={environment} />)}
                <Text className={styles.time}><Moment time={point.at} /></Text>
              </div>
              <CoverageChart points={points} index={index} choose={(i) => setChosen(i === points.length - 1 ? undefined : points[i]?.at)} />
            </Panel>
          )}
    </div>
  )
}

/** A number at the chosen time; it leads to the machines that it counts now. */
function At({ series: s, value, environment }: { series: Series; value: number; environment: string }) {
  const styles = useStyles()
  const format = useFormat()
  return (
    <div className={styles.one}>
      <span className={styles.label}>
        <svg width="18" height="10" aria-hidden><line x1="0" y1="5" x2="18" y2="5" stroke={s.colour} strokeWidth="3" strokeDasharray={s.dash} /></svg>
        {s.label}
      </span>
      <RouteLink to={machinesAt(environment, s.query)} className={styles.number} title={s.label} data-testid={`coverage-${s.key}`}>{format.number(value)}</RouteLink>
    </div>
  )
}
