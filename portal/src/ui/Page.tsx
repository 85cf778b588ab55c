// The frame of a room: where one is, its name, what one can do.
import { makeStyles, mergeClasses, Title2, tokens } from '@fluentui/react-components'
import { Fragment, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { RouteLink } from './links'
import { useDocumentTitle } from './useDocumentTitle'

const useStyles = makeStyles({
  page: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, padding: '20px 28px 28px', boxSizing: 'border-box', minHeight: '100%' },
  fill: { height: '100%', minHeight: '440px' },
  crumbs: { display: 'flex', gap: tokens.spacingHorizontalS, fontSize: tokens.fontSizeBase200, color: tokens.colorNeutralForeground3, marginBottom: tokens.spacingVerticalXS },
  head: { display: 'flex', flexWrap: 'wrap', alignItems: 'flex-start', gap: tokens.spacingHorizontalL },
  heading: { flex: '1 1 420px', minWidth: 0 },
  title: { display: 'block', margin: 0, overflowWrap: 'anywhere' },
  actions: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalS },
})

interface Props {
  /** Names the browser's tab, and the heading unless that has more to show. */
  title: string
  heading?: ReactNode
  /** What stands below the heading. */
  subtitle?: ReactNode
  crumbs?: { to: string; label: string }[]
  actions?: ReactNode
  /** The page takes the window's height and scrolls inside. */
  fill?: boolean
  children: ReactNode
}

export function Page({ title, heading, subtitle, crumbs, actions, fill, children }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  useDocumentTitle(title)
  return (
    <div className={mergeClasses(styles.page, fill && styles.fill)}>
      <div>
        {crumbs && (
          <nav className={styles.crumbs} aria-label={t('nav.crumbs')}>
            {crumbs.map((crumb) => (
              <Fragment key={crumb.to}>
                <RouteLink to={crumb.to}>{crumb.label}</RouteLink>
                <span aria-hidden>›</span>
              </Fragment>
            ))}
          </nav>
        )}
        <div className={styles.head}>
          <div className={styles.heading}>
            <Title2 as="h1" className={styles.title} data-testid="page-title">{heading ?? title}</Title2>
            {subtitle}
          </div>
          {actions && <div className={styles.actions}>{actions}</div>}
        </div>
      </div>
      {children}
    </div>
  )
}
