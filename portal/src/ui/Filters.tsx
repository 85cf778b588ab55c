import { makeStyles, mergeClasses, SearchBox, Select, tokens, useId, Label } from '@fluentui/react-components'
import { useEffect, useState, type ReactNode } from 'react'
import { useSearchParams } from 'react-router'

const useStyles = makeStyles({
  bar: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM },
  choice: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS },
  search: { width: '300px', maxWidth: '100%' },
  short: { width: '180px' },
  count: { marginLeft: 'auto', color: tokens.colorNeutralForeground3 },
})

export function FilterBar({ children, count }: { children: ReactNode; count?: string }) {
  const styles = useStyles()
  return (
    <div className={styles.bar}>
      {children}
      {count !== undefined && <span className={styles.count} role="status">{count}</span>}
    </div>
  )
}

/** One filter of a list. It stands in the address, so that a view can be shared. */
export function useFilter(name: string): [string, (value: string) => void] {
  const [parameters, setParameters] = useSearchParams()
  const set = (value: string) => setParameters((old) => {
    const next = new URLSearchParams(old)
    if (value === '') next.delete(name)
    else next.set(name, value)
    return next
  }, { replace: true })
  return [parameters.get(name) ?? '', set]
}

/** A search that waits until the person stops typing. */
export function SearchFilter({ label, value, set, testid, short }: { label: string; value: string; set: (value: string) => void; testid?: string; short?: boolean }) {
  const styles = useStyles()
  const [text, setText] = useState(value)
  useEffect(() => setText(value), [value])
  useEffect(() => {
    if (text === value) return
    const timer = window.setTimeout(() => set(text), 250)
    return () => window.clearTimeout(timer)
  })
  return (
    <SearchBox
      className={mergeClasses(styles.search, short && styles.short)}
      placeholder={label} aria-label={label} value={text} onChange={(_, d) => setText(d.value)}
      input={{ 'data-testid': testid } as object}
    />
  )
}

interface Choice {
  value: string
  label: string
}

export function SelectFilter({ label, value, set, choices, all }: { label: string; value: string; set: (value: string) => void; choices: Choice[]; all: string }) {
  const styles = useStyles()
  const id = useId()
  return (
    <div className={styles.choice}>
      <Label htmlFor={id}>{label}</Label>
      <Select id={id} value={value} onChange={(_, d) => set(d.value)}>
        <option value="">{all}</option>
        {choices.map((c) => <option key={c.value} value={c.value}>{c.label}</option>)}
      </Select>
    </div>
  )
}
