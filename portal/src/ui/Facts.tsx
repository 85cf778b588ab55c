import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import type { ReactNode } from 'react'

const useStyles = makeStyles({
  facts: { display: 'grid', gridTemplateColumns: 'repeat(auto-fill, minmax(min(220px, 100%), 1fr))', gap: `${tokens.spacingVerticalM} ${tokens.spacingHorizontalXXL}`, margin: 0 },
  narrow: { gridTemplateColumns: '1fr' },
  term: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase200 },
  value: { margin: 0, overflowWrap: 'anywhere' },
})

export interface Fact {
  label: string
  value: ReactNode
  testid?: string
}

/** Names and values; what has no value is left out. */
export function Facts({ facts, narrow }: { facts: Fact[]; narrow?: boolean }) {
  const styles = useStyles()
  const shown = facts.filter((fact) => fact.value !== '' && fact.value !== undefined && fact.value !== null && fact.value !== false)
  return (
    <dl className={mergeClasses(styles.facts, narrow && styles.narrow)}>
      {shown.map((fact) => (
        <div key={fact.label}>
          <dt className={styles.term}>{fact.label}</dt>
          <dd className={styles.value} data-testid={fact.testid}>{fact.value}</dd>
        </div>
      ))}
    </dl>
  )
}
