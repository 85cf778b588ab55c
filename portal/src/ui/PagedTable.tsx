import type { ReactNode } from 'react'
import type { Rows } from '../api/rows'
import type { Paged } from '../api/use'
import { Failure, Loading } from './states'
import { Table, type Column, type Order } from './Table'

interface Props<T> {
  list: Paged<T>
  label: string
  columns: Column<T>[]
  rowTestid: string
  open?: (item: T) => void
  /** What is shown instead of an empty table. */
  empty: ReactNode
}

/** A list with every state that it can be in. */
export function PagedTable<T extends { id: string }>({ list, label, columns, rowTestid, open, empty }: Props<T>) {
  if (list.loading) return <Loading />
  // Old rows stay while the control plane is away; a list that never came does not.
  if (list.error && list.items.length === 0) return <Failure error={list.error} retry={list.reload} />
  if (list.items.length === 0) return empty
  return (
    <Table
      label={label} columns={columns} items={list.items} rowId={(item) => item.id} rowTestid={rowTestid}
      total={list.total} more={list.hasMore ? list.more : undefined} open={open}
    />
  )
}

interface RowProps<T> {
  rows: Rows<T>
  label: string
  columns: Column<T>[]
  order?: Order
  rowTestid: string
  open?: (item: T) => void
  empty: ReactNode
}

/** A list of any length with every state that it can be in. */
export function RowTable<T extends { id: string }>({ rows, label, columns, order, rowTestid, open, empty }: RowProps<T>) {
  if (rows.loading) return <Loading />
  if (rows.error && rows.total === 0) return <Failure error={rows.error} retry={rows.reload} />
  if (rows.total === 0) return empty
  return <Table label={label} columns={columns} items={rows} order={order} stale={rows.stale} rowId={(item) => item.id} rowTestid={rowTestid} open={open} />
}
