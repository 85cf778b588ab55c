import { listDevices, type DeviceQuery } from '../../api/devices'
import type { DeviceColumn } from './columns'

const pageSize = 1_000

/**
 * A cell of a file. Names and tags come from hosts: one that a spreadsheet
 * would take for a formula is marked as text.
 */
export function cell(value: string): string {
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

/** All devices that the filters select, with the columns that are shown. */
export async function devicesAsCsv(query: DeviceQuery, columns: DeviceColumn[]): Promise<string> {
  const lines = [columns.map((c) => cell(c.header)).join(',')]
  let cursor = ''
  do {
    const page = await listDevices({ ...query, cursor, limit: pageSize })
    for (const device of page.items) lines.push(columns.map((c) => cell(c.text(device))).join(','))
    cursor = page.next ?? ''
  } while (cursor !== '')
  return lines.join('\r\n') + '\r\n'
}

/** Gives a file to the person. */
export function save(name: string, text: string) {
  // The mark tells spreadsheets that it is UTF-8.
  const url = URL.createObjectURL(new Blob(['\ufeff', text], { type: 'text/csv' }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
