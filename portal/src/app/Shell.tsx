import { makeStyles, mergeClasses, tokens, Button, Text } from '@fluentui/react-components'
import { AlertRegular } from '@fluentui/react-icons/svg/alert'
import { ArrowCircleUpRegular } from '@fluentui/react-icons/svg/arrow-circle-up'
import { DesktopRegular } from '@fluentui/react-icons/svg/desktop'
import { GroupRegular } from '@fluentui/react-icons/svg/group'
import { HomeRegular } from '@fluentui/react-icons/svg/home'
import { PersonCircleRegular } from '@fluentui/react-icons/svg/person-circle'
import { SettingsRegular } from '@fluentui/react-icons/svg/settings'
import { ShieldErrorRegular } from '@fluentui/react-icons/svg/shield-error'
import { ShieldTaskRegular } from '@fluentui/react-icons/svg/shield-task'
import { HistoryRegular } from '@fluentui/react-icons/svg/history'
import { KeyRegular } from '@fluentui/react-icons/svg/key'
import { PeopleRegular } from '@fluentui/react-icons/svg/people'
import { SendRegular } from '@fluentui/react-icons/svg/send'
import { lazy, Suspense, useEffect, useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { NavLink, Outlet, useLocation } from 'react-router'
import { connect } from '../api/live'
import { Loading } from '../ui/states'
import { HeaderMenu } from './HeaderMenu'
import { Mark } from './Mark'
import { PreferenceMenu } from './PreferenceMenu'
import { product } from './product'
import { useSession, type Permission } from './session'

const useStyles = makeStyles({
  shell: { display: 'grid', gridTemplateRows: '48px minmax(0, 1fr)', gridTemplateColumns: '228px minmax(0, 1fr)', height: '100%', backgroundColor: tokens.colorNeutralBackground2, '@media (max-width: 900px)': { gridTemplateColumns: '52px minmax(0, 1fr)' } },
  skip: {
    position: 'absolute', left: tokens.spacingHorizontalM, top: '-80px', zIndex: 10, padding: `${tokens.spacingVerticalS} ${tokens.spacingHorizontalM}`,
    backgroundColor: tokens.colorNeutralBackground1, color: tokens.colorBrandForegroundLink, borderRadius: tokens.borderRadiusMedium, boxShadow: tokens.shadow8,
    ':focus': { top: tokens.spacingVerticalS },
  },
  header: {
    gridColumn: '1 / -1', display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalM, padding: `0 ${tokens.spacingHorizontalM}`,
    backgroundColor: tokens.colorNeutralBackground1, borderBottom: `1px solid ${tokens.colorNeutralStroke2}`,
  },
  brand: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS, color: tokens.colorNeutralForeground1, textDecoration: 'none', fontWeight: tokens.fontWeightSemibold, fontSize: tokens.fontSizeBase400 },
  organization: { color: tokens.colorNeutralForeground3, borderLeft: `1px solid ${tokens.colorNeutralStroke2}`, paddingLeft: tokens.spacingHorizontalM, overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap' },
  fill: { flexGrow: 1 },
  nav: { display: 'flex', flexDirection: 'column', overflowY: 'auto', backgroundColor: tokens.colorNeutralBackground1, borderRight: `1px solid ${tokens.colorNeutralStroke2}`, padding: tokens.spacingVerticalS },
  list: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: '2px' },
  link: {
    display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalM, height: '36px', padding: `0 ${tokens.spacingHorizontalS}`, boxSizing: 'border-box',
    borderRadius: tokens.borderRadiusMedium, color: tokens.colorNeutralForeground2, textDecoration: 'none', position: 'relative', whiteSpace: 'nowrap', overflow: 'hidden',
    ':hover': { backgroundColor: tokens.colorSubtleBackgroundHover, color: tokens.colorNeutralForeground2Hover },
    ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}`, outlineOffset: '-2px' },
  },
  current: {
    backgroundColor: tokens.colorSubtleBackgroundSelected, color: tokens.colorNeutralForeground1, fontWeight: tokens.fontWeightSemibold,
    '::before': { content: '""', position: 'absolute', left: 0, top: '9px', bottom: '9px', width: '3px', borderRadius: '2px', backgroundColor: tokens.colorCompoundBrandBackground },
  },
  icon: { fontSize: '20px', display: 'flex', flexShrink: 0 },
  label: { '@media (max-width: 900px)': { position: 'absolute', left: '-10000px' } },
  version: { marginTop: 'auto', padding: tokens.spacingHorizontalS, color: tokens.colorNeutralForeground3, '@media (max-width: 900px)': { display: 'none' } },
  main: { overflow: 'auto', display: 'flex', flexDirection: 'column', minWidth: 0, ':focus': { outline: 'none' } },
})

const FocusManager = lazy(() => import('./FocusManager'))

export function Shell() {
  const styles = useStyles()
  const { t } = useTranslation()
  const session = useSession()
  const { pathname } = useLocation()
  useEffect(connect, [])
  // Its code is large, and no dialog opens before the page is there.
  const [settled, setSettled] = useState(false)
  useEffect(() => {
    const timer = window.setTimeout(() => setSettled(true))
    return () => window.clearTimeout(timer)
  }, [])

  const all: { to: string; testid: string; icon: ReactNode; label: string; needs?: Permission }[] = [
    { to: '/', testid: 'nav-home', icon: <HomeRegular />, label: t('nav.home') },
    { to: '/incidents', testid: 'nav-incidents', icon: <ShieldErrorRegular />, label: t('nav.incidents') },
    { to: '/alerts', testid: 'nav-alerts', icon: <AlertRegular />, label: t('nav.alerts') },
    { to: '/devices', testid: 'nav-devices', icon: <DesktopRegular />, label: t('nav.devices') },
    { to: '/policies', testid: 'nav-policies', icon: <ShieldTaskRegular />, label: t('nav.policies') },
    { to: '/groups', testid: 'nav-groups', icon: <GroupRegular />, label: t('nav.groups') },
    { to: '/environments', testid: 'nav-environments', icon: <SettingsRegular />, label: t('nav.environments') },
    { to: '/upgrades', testid: 'nav-upgrades', icon: <ArrowCircleUpRegular />, label: t('nav.upgrades') },
    { to: '/settings/notifications', testid: 'nav-notifications', icon: <SendRegular />, label: t('nav.notifications'), needs: 'notifications.manage' },
    { to: '/settings/users', testid: 'nav-users', icon: <PeopleRegular />, label: t('nav.users'), needs: 'users.manage' },
    { to: '/settings/tokens', testid: 'nav-tokens', icon: <KeyRegular />, label: t('nav.tokens'), needs: 'tokens.manage' },
    { to: '/settings/audit', testid: 'nav-audit', icon: <HistoryRegular />, label: t('nav.audit'), needs: 'audit.read' },
  ]
  const rooms = all.filter((room) => room.needs === undefined || (session.permissions ?? []).includes(room.needs))
  return (
    <div className={styles.shell}>
      <a className={styles.skip} href="#content">{t('nav.skip')}</a>
      <header className={styles.header}>
        <NavLink to="/" className={styles.brand}><Mark size={24} /> {product}</NavLink>
        <Text className={styles.organization}>{session.organization.name}</Text>
        <div className={styles.fill} />
        <PreferenceMenu />
        <HeaderMenu
          load={() => import('./UserMenuList')}
          trigger={<Button appearance="transparent" icon={<PersonCircleRegular />} data-testid="user-menu">{session.user.name}</Button>}
        />
      </header>
      <nav className={styles.nav} aria-label={t('nav.label')}>
        <ul className={styles.list}>
          {rooms.map((room) => {
            const current = room.to === '/' ? pathname === '/' : pathname === room.to || pathname.startsWith(room.to + '/')
            return (
              <li key={room.to}>
                <NavLink to={room.to} className={mergeClasses(styles.link, current && styles.current)} data-testid={room.testid} title={room.label}>
                  <span className={styles.icon} aria-hidden>{room.icon}</span>
                  <span className={styles.label}>{room.label}</span>
                </NavLink>
              </li>
            )
          })}
        </ul>
        <Text size={200} className={styles.version}>{t('nav.version', { version: session.version })}</Text>
      </nav>
      <main id="content" className={styles.main} tabIndex={-1}>
        <Suspense fallback={<Loading />}><Outlet /></Suspense>
      </main>
      {settled && <Suspense><FocusManager /></Suspense>}
    </div>
  )
}
