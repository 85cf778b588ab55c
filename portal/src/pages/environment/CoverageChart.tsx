// Lines over time, drawn by hand: four of them need no library.
import { makeStyles, tokens } from '@fluentui/react-components'
import { useEffect, useRef, useState, type KeyboardEvent, type PointerEvent } from 'react'
import { useTranslation } from 'react-i18next'
import type { CoveragePoint } from '../../api/machines'
import { useFormat } from '../../i18n/names'
import { useSeries } from './series'

const useStyles = makeStyles({
  chart: { width: '100%', minWidth: 0, touchAction: 'none', cursor: 'crosshair', borderRadius: tokens.borderRadiusMedium, ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}` } },
  text: { fill: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200 },
  grid: { stroke: tokens.colorNeutralStroke3 },
  cursor: { stroke: tokens.colorNeutralForeground2 },
})

const height = 300
const edge = { left: 52, right: 16, top: 12, bottom: 28 }

/** A round number that is not below a value: 1, 2 or 5 times a power of ten. */
function round(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)))
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value) ?? value
}

interface Props {
  points: CoveragePoint[]
  /** The point that is looked at. */
  index: number
  choose: (index: number) => void
}

export function CoverageChart({ points, index, choose }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const series = useSeries()
  const box = useRef<HTMLDivElement>(null)
  const [width, setWidth] = useState(900)
  useEffect(() => {
    if (!box.current) return
    const watch = new ResizeObserver(([entry]) => entry && setWidth(Math.max(320, Math.floor(entry.contentRect.width))))
    watch.observe(box.current)
    return () => watch.disconnect()
  }, [])

  const times = points.map((p) => Date.parse(p.at))
  const first = times[0] ?? 0
  const span = Math.max((times.at(-1) ?? 0) - first, 1)
  const step = Math.max(1, round(Math.max(...points.map((p) => p.machines), 1) / 4))
  const top = step * Math.max(1, Math.ceil(Math.max(...points.map((p) => p.machines), 1) / step))
  const x = (i: number) => (points.length === 1 ? edge.left : edge.left + ((times[i]! - first) / span) * (width - edge.left - edge.right))
  const y = (value: number) => height - edge.bottom - (value / top) * (height - edge.top - edge.bottom)
  const line = (key: (typeof series)[number]['key']) => points.map((p, i) => `${i === 0 ? 'M' : 'L'}${x(i).toFixed(1)} ${y(p[key]).toFixed(1)}`).join('')
  const rows = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step)
  const marks = Array.from({ length: Math.min(6, points.length) }, (_, i, all = Math.min(6, points.length)) => (all === 1 ? 0 : Math.round((i * (points.length - 1)) / (all - 1))))
  const hours = span <= 2 * 86_400_000

  const seek = (event: PointerEvent<HTMLDivElement>) => {
    const at = event.clientX - event.currentTarget.getBoundingClientRect().left
    let nearest = 0
    for (let i = 1; i < points.length; i++) {
      if (Math.abs(x(i) - at) < Math.abs(x(nearest) - at)) nearest = i
    }
    choose(nearest)
  }
  const keys: Record<string, number> = { ArrowLeft: index - 1, ArrowRight: index + 1, PageUp: index - 10, PageDown: index + 10, Home: 0, End: points.length - 1 }
  const press = (event: KeyboardEvent) => {
    const to = keys[event.key]
    if (to === undefined) return
    event.preventDefault()
    choose(Math.min(Math.max(to, 0), points.length - 1))
  }
  const point = points[index]!
  const said = t('coverageTime.said', { time: format.time(point.at), machines: format.number(point.machines), protected: format.number(point.protected), failed: format.number(point.failed) })
  return (
    <div
      ref={box} className={styles.chart} role="slider" tabIndex={0} aria-label={t('coverageTime.cursor')} aria-valuemin={0} aria-valuemax={points.length - 1} aria-valuenow={index} aria-valuetext={said}
      onPointerMove={(e) => e.buttons <= 1 && seek(e)} onPointerDown={seek} onKeyDown={press} data-testid="coverage-chart"
    >
      <svg width={width} height={height} aria-hidden style={{ display: 'block' }}>
        {rows.map((value) => (
          <g key={value}>
            <line x1={edge.left} x2={width - edge.right} y1={y(value)} y2={y(value)} className={styles.grid} />
            <text x={edge.left - 8} y={y(value) + 4} textAnchor="end" className={styles.text}>{format.number(value)}</text>
          </g>
        ))}
        {marks.map((i, n) => (
          <text key={n} x={x(i)} y={height - 8} textAnchor={n === 0 ? 'start' : n === marks.length - 1 ? 'end' : 'middle'} className={styles.text}>{format.brief(points[i]!.at, hours)}</text>
        ))}
        {series.map((s) => <path key={s.key} d={line(s.key)} fill="none" stroke={s.colour} strokeWidth={s.key === 'protected' ? 2.5 : 1.5} strokeDasharray={s.dash} strokeLinejoin="round" />)}
        <line x1={x(index)} x2={x(index)} y1={edge.top} y2={height - edge.bottom} className={styles.cursor} />
        {series.map((s) => <circle key={s.key} cx={x(index)} cy={y(point[s.key])} r={4} fill={s.colour} />)}
      </svg>
    </div>
  )
}
