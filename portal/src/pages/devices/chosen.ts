import { useState } from 'react'
import type { DeviceColumn } from './columns'

const key = 'komainu.devices.columns'

function read(): string[] | undefined {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(key) ?? 'null')
    return Array.isArray(value) ? value.map(String) : undefined
  } catch {
    return undefined // storage may be forbidden, or hold what an older portal wrote
  }
}

/** Which columns this browser shows, and the way to choose others. The first one names the row and stays. */
export function useChosen(all: DeviceColumn[]): [DeviceColumn[], (ids: string[] | undefined) => void] {
  const [ids, setIds] = useState(read)
  const choose = (next: string[] | undefined) => {
    try {
      if (next) localStorage.setItem(key, JSON.stringify(next))
      else localStorage.removeItem(key)
    } catch {
      // the choice then lasts as long as the page
    }
    setIds(next)
  }
  return [all.filter((c, i) => i === 0 || (ids ? ids.includes(c.id) : c.usual)), choose]
}
