// The one table of the portal: as many rows as there are, of which only those
// in sight are made.
import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { ArrowDownRegular } from '@fluentui/react-icons/svg/arrow-down'
import { ArrowUpRegular } from '@fluentui/react-icons/svg/arrow-up'
import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useRef, type MouseEvent, type ReactNode, type RefObject } from 'react'
import type { Rows } from '../api/rows'

export interface Column<T> {
  id: string
  header: string
  /** Least width in pixels, and the share of what is left over. */
  min: number
  grow?: number
  /** What the API calls the order by this column. */
  sort?: string
  /** Stands in the head instead of the header, which then only names the column. */
  head?: ReactNode
  cell: (item: T) => ReactNode
}

/** The order of a table: the name of a column's order, with - before it when it falls. */
export interface Order {
  value: string
  set: (value: string) => void
}

interface Props<T> {
  label: string
  columns: Column<T>[]
  /** All rows, or those that are there of a list of any length. */
  items: T[] | Pick<Rows<T>, 'total' | 'at' | 'see'>
  order?: Order
  rowId: (item: T) => string
  rowTestid: string
  /** How many there are, loaded or not. */
  total?: number
  /** Called when the end of the loaded rows comes into sight. */
  more?: () => void
  open?: (item: T) => void
  /** Takes the height of its rows up to a limit, instead of the page's. */
  compact?: boolean
  /** The rows are those of an older choice; the newer ones are on their way. */
  stale?: boolean
  /** For pages that move the rows themselves. */
  scroller?: RefObject<HTMLDivElement | null>
}

/** The height of a row in pixels. */
export const rowHeight = 40
const headHeight = 36
const edge = 12

const useStyles = makeStyles({
  scroller: {
    overflow: 'auto', flex: '1 1 0', minHeight: '160px', backgroundColor: tokens.colorNeutralBackground1,
    border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusMedium,
    ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}`, outlineOffset: '-2px' },
  },
  compact: { flex: '0 1 auto', minHeight: 0 },
  head: { position: 'sticky', top: 0, zIndex: 1, backgroundColor: tokens.colorNeutralBackground1, borderBottom: `1px solid ${tokens.colorNeutralStroke1}` },
  row: { display: 'grid', alignItems: 'center', boxSizing: 'border-box', padding: `0 ${edge}px` },
  bodyRow: {
    position: 'absolute', left: 0, right: 0, height: `${rowHeight}px`, borderBottom: `1px solid ${tokens.colorNeutralStroke3}`,
    // On the dark theme's hover the usual colour of a link has too little contrast.
    ':hover': { backgroundColor: tokens.colorSubtleBackgroundHover, '& a': { color: tokens.colorBrandForegroundLinkHover } },
  },
  opens: { cursor: 'pointer' },
  stale: { opacity: 0.6 },
  waiting: { display: 'block', height: '10px', width: '60%', borderRadius: '5px', backgroundColor: tokens.colorNeutralBackground4 },
  sorts: { display: 'inline-flex', alignItems: 'center', gap: '4px', maxWidth: '100%', padding: 0, border: 0, background: 'none', font: 'inherit', color: 'inherit', cursor: 'pointer', ':hover': { color: tokens.colorNeutralForeground1 }, ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}` } },
  sortLabel: { overflow: 'hidden', textOverflow: 'ellipsis' },
  cell: { overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap', padding: `2px ${tokens.spacingHorizontalS} 2px 2px`, minWidth: 0 },
  headCell: { color: tokens.colorNeutralForeground2, fontWeight: tokens.fontWeightSemibold, fontSize: tokens.fontSizeBase200, height: `${headHeight}px`, lineHeight: `${headHeight}px`, paddingTop: 0, paddingBottom: 0 },
})

export function Table<T>({ label, columns, items, order, rowId, rowTestid, total, more, open, compact, stale, scroller: given }: Props<T>) {
  const styles = useStyles()
  const own = useRef<HTMLDivElement>(null)
  const scroller = given ?? own
  const list = Array.isArray(items) ? undefined : items
  const count = list ? list.total : (items as T[]).length
  const at = (index: number) => (list ? list.at(index) : (items as T[])[index])
  const virtual = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    getItemKey: (index) => {
      const item = at(index)
      return item ? rowId(item) : `#${index}`
    },
    overscan: 8,
    scrollMargin: headHeight + 1,
    initialRect: { width: 1200, height: 800 },
  })
  const rows = virtual.getVirtualItems()
  const first = rows[0]?.index ?? 0
  const last = rows.at(-1)?.index ?? -1
  useEffect(() => {
    if (more && last >= count - 20) more()
  }, [more, last, count])
  const see = list?.see
  useEffect(() => {
    if (last >= 0) see?.(first, last)
  }, [see, first, last])

  const gridTemplateColumns = columns.map((c) => (c.grow ? `minmax(${c.min}px, ${c.grow}fr)` : `${c.min}px`)).join(' ')
  const minWidth = columns.reduce((sum, c) => sum + c.min, 2 * edge)
  const click = (event: MouseEvent, item: T) => {
    // A link or a button in the row does its own work; a selection is none.
    if ((event.target as Element).closest('a, button, input') || window.getSelection()?.toString()) return
    open?.(item)
  }
  return (
    <div
      ref={scroller} className={mergeClasses(styles.scroller, compact && styles.compact)} tabIndex={0} role="group" aria-label={label}
      style={compact ? { height: Math.min(count, 12) * rowHeight + headHeight + 4 } : undefined}
    >
      <div role="table" aria-label={label} aria-rowcount={(total ?? count) + 1} style={{ minWidth }}>
        <div role="rowgroup" className={styles.head}>
          <div role="row" aria-rowindex={1} className={styles.row} style={{ gridTemplateColumns }}>
            {columns.map((c) => <HeadCell key={c.id} column={c} order={order} />)}
          </div>
        </div>
        <div role="rowgroup" className={mergeClasses(stale && styles.stale)} style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {rows.map((row) => {
            const item = at(row.index)
            return (
              <div
                key={row.key} role="row" aria-rowindex={row.index + 2} data-testid={item ? rowTestid : 'row-waiting'}
                className={mergeClasses(styles.row, styles.bodyRow, open && item && styles.opens)}
                style={{ gridTemplateColumns, transform: `translateY(${row.start - headHeight - 1}px)` }}
                onClick={(event) => item && click(event, item)}
              >
                {columns.map((c) => <div key={c.id} role="cell" className={styles.cell}>{item ? c.cell(item) : <span className={styles.waiting} />}</div>)}
              </div>
            )
          })}
        </div>
      </div>
    </div>
  )
}

function HeadCell<T>({ column, order }: { column: Column<T>; order?: Order }) {
  const styles = useStyles()
  const { header, sort, head } = column
  const className = mergeClasses(styles.cell, styles.headCell)
  if (head !== undefined) return <div role="columnheader" aria-label={header} className={className}>{head}</div>
  if (!order || !sort) return <div role="columnheader" title={header} className={className}>{header}</div>
  const now = order.value === sort ? 'ascending' : order.value === `-${sort}` ? 'descending' : 'none'
  return (
    <div role="columnheader" aria-sort={now} className={className}>
      <button type="button" title={header} className={styles.sorts} data-testid={`sort-${sort}`} onClick={() => order.set(now === 'ascending' ? `-${sort}` : sort)}>
        <span className={styles.sortLabel}>{header}</span>
        {now === 'ascending' && <ArrowUpRegular aria-hidden />}
        {now === 'descending' && <ArrowDownRegular aria-hidden />}
      </button>
    </div>
  )
}
