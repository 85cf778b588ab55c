// The page around sign-in and password change: one card, the mark above it.
import { makeStyles, Title2, tokens } from '@fluentui/react-components'
import type { ReactNode } from 'react'
import { Mark } from './Mark'
import { PreferenceMenu } from './PreferenceMenu'
import { useDocumentTitle } from '../ui/useDocumentTitle'
import { product } from './product'

const useStyles = makeStyles({
  page: {
    minHeight: '100%',
    boxSizing: 'border-box',
    display: 'grid',
    placeItems: 'center',
    padding: tokens.spacingHorizontalXXL,
    backgroundColor: tokens.colorNeutralBackground3,
  },
  card: { width: 'min(440px, 100%)', boxSizing: 'border-box', padding: '32px', display: 'flex', flexDirection: 'column', backgroundColor: tokens.colorNeutralBackground1, borderRadius: tokens.borderRadiusXLarge, gap: tokens.spacingVerticalL, boxShadow: tokens.shadow16 },
  brand: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS, fontWeight: tokens.fontWeightSemibold, fontSize: tokens.fontSizeBase400 },
  preferences: { position: 'absolute', top: tokens.spacingVerticalM, right: tokens.spacingHorizontalM },
  title: { margin: 0 },
})

export function Door({ title, children }: { title: string; children: ReactNode }) {
  const styles = useStyles()
  useDocumentTitle(title)
  return (
    <main className={styles.page}>
      <div className={styles.preferences}><PreferenceMenu /></div>
      <div className={styles.card}>
        <div className={styles.brand}><Mark size={32} /> {product}</div>
        <Title2 as="h1" className={styles.title} data-testid="page-title">{title}</Title2>
        {children}
      </div>
    </main>
  )
}
