// A table for short lists whose cells may wrap. Long lists use Table.
import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import type { ReactNode } from 'react'

const useStyles = makeStyles({
  scroller: { overflowX: 'auto' },
  table: { width: '100%', borderCollapse: 'collapse', textAlign: 'left' },
  head: { color: tokens.colorNeutralForeground2, fontSize: tokens.fontSizeBase200, fontWeight: tokens.fontWeightSemibold, whiteSpace: 'nowrap', borderBottom: `1px solid ${tokens.colorNeutralStroke1}`, padding: '6px 16px 6px 0', textAlign: 'left' },
  row: { borderBottom: `1px solid ${tokens.colorNeutralStroke3}` },
  cell: { padding: '8px 16px 8px 0', verticalAlign: 'baseline', fontWeight: tokens.fontWeightRegular, overflowWrap: 'anywhere' },
  tight: { whiteSpace: 'nowrap', overflowWrap: 'normal', width: '1px' },
  middle: { textAlign: 'center' },
})

export interface PlainColumn<T> {
  id: string
  header: string
  cell: (item: T) => ReactNode
  /** As narrow as its content. */
  tight?: boolean
  middle?: boolean
}

interface Props<T> {
  label: string
  columns: PlainColumn<T>[]
  items: T[]
  rowId: (item: T) => string
  rowTestid?: string
}

/** The first column names the row. */
export function PlainTable<T>({ label, columns, items, rowId, rowTestid }: Props<T>) {
  const styles = useStyles()
  const look = (c: PlainColumn<T>) => mergeClasses(styles.cell, c.tight && styles.tight, c.middle && styles.middle)
  return (
    <div className={styles.scroller} tabIndex={0} role="group" aria-label={label}>
      <table className={styles.table} aria-label={label}>
        <thead>
          <tr>{columns.map((c) => <th key={c.id} scope="col" className={mergeClasses(styles.head, c.middle && styles.middle)}>{c.header}</th>)}</tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={rowId(item)} className={styles.row} data-testid={rowTestid}>
              {columns.map((c, i) => (i === 0
                ? <th key={c.id} scope="row" className={look(c)}>{c.cell(item)}</th>
                : <td key={c.id} className={look(c)}>{c.cell(item)}</td>))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
