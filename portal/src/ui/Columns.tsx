import { makeStyles, tokens } from '@fluentui/react-components'
import type { ReactNode } from 'react'

const useStyles = makeStyles({
  grid: { display: 'grid', gridTemplateColumns: 'minmax(0, 1fr) minmax(300px, 380px)', gap: tokens.spacingHorizontalL, alignItems: 'start', '@media (max-width: 1150px)': { gridTemplateColumns: 'minmax(0, 1fr)' } },
  column: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, minWidth: 0 },
})

/** What a page is about, and beside it what describes that. */
export function Columns({ main, side }: { main: ReactNode; side: ReactNode }) {
  const styles = useStyles()
  return (
    <div className={styles.grid}>
      <div className={styles.column}>{main}</div>
      <div className={styles.column}>{side}</div>
    </div>
  )
}
