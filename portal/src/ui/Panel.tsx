import { makeStyles, mergeClasses, Subtitle2, tokens } from '@fluentui/react-components'
import { useId, type ReactNode } from 'react'

const useStyles = makeStyles({
  panel: {
    backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
    padding: '16px 20px 20px', display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM, minWidth: 0,
  },
  head: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalM, minHeight: '32px' },
  title: { margin: 0, flexGrow: 1 },
})

/** One part of a page with a heading of its own. */
export function Panel({ title, actions, children, className }: { title: string; actions?: ReactNode; children: ReactNode; className?: string }) {
  const styles = useStyles()
  const id = useId()
  return (
    <section className={mergeClasses(styles.panel, className)} aria-labelledby={id}>
      <div className={styles.head}>
        <Subtitle2 as="h2" id={id} className={styles.title}>{title}</Subtitle2>
        {actions}
      </div>
      {children}
    </section>
  )
}
