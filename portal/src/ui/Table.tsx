// The one table of the portal: as many rows as there are, of which only those
// in sight are made.
import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useRef, type MouseEvent, type ReactNode } from 'react'

export interface Column<T> {
  id: string
  header: string
  /** Least width in pixels, and the share of what is left over. */
  min: number
  grow?: number
  cell: (item: T) => ReactNode
}

interface Props<T> {
  label: string
  columns: Column<T>[]
  items: T[]
  rowId: (item: T) => string
  rowTestid: string
  /** How many there are, loaded or not. */
  total?: number
  /** Called when the end of the loaded rows comes into sight. */
  more?: () => void
  open?: (item: T) => void
  /** Takes the height of its rows up to a limit, instead of the page's. */
  compact?: boolean
}

const rowHeight = 40
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
    ':hover': { backgroundColor: tokens.colorSubtleBackgroundHover },
  },
  opens: { cursor: 'pointer' },
  cell: { overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap', padding: `2px ${tokens.spacingHorizontalS} 2px 2px`, minWidth: 0 },
  headCell: { color: tokens.colorNeutralForeground2, fontWeight: tokens.fontWeightSemibold, fontSize: tokens.fontSizeBase200, height: `${headHeight}px`, lineHeight: `${headHeight}px`, paddingTop: 0, paddingBottom: 0 },
})

export function Table<T>({ label, columns, items, rowId, rowTestid, total, more, open, compact }: Props<T>) {
  const styles = useStyles()
  const scroller = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({
    count: items.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    getItemKey: (index) => rowId(items[index]!),
    overscan: 8,
    scrollMargin: headHeight + 1,
    initialRect: { width: 1200, height: 800 },
  })
  const rows = virtual.getVirtualItems()
  const last = rows.at(-1)?.index ?? -1
  useEffect(() => {
    if (more && last >= items.length - 20) more()
  }, [more, last, items.length])

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
      style={compact ? { height: Math.min(items.length, 12) * rowHeight + headHeight + 4 } : undefined}
    >
      <div role="table" aria-label={label} aria-rowcount={(total ?? items.length) + 1} style={{ minWidth }}>
        <div role="rowgroup" className={styles.head}>
          <div role="row" aria-rowindex={1} className={styles.row} style={{ gridTemplateColumns }}>
            {columns.map((c) => <div key={c.id} role="columnheader" title={c.header} className={mergeClasses(styles.cell, styles.headCell)}>{c.header}</div>)}
          </div>
        </div>
        <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {rows.map((row) => {
            const item = items[row.index]!
            return (
              <div
                key={row.key} role="row" aria-rowindex={row.index + 2} data-testid={rowTestid}
                className={mergeClasses(styles.row, styles.bodyRow, open && styles.opens)}
                style={{ gridTemplateColumns, transform: `translateY(${row.start - headHeight - 1}px)` }}
                onClick={(event) => click(event, item)}
              >
                {columns.map((c) => <div key={c.id} role="cell" className={styles.cell}>{c.cell(item)}</div>)}
              </div>
            )
          })}
        </div>
      </div>
    </div>
  )
}
