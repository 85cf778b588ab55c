import { makeStyles, Menu, MenuItem, MenuList, MenuPopover, MenuTrigger, Text, tokens, type ButtonProps } from '@fluentui/react-components'
import { SignOutRegular } from '@fluentui/react-icons/svg/sign-out'
import type { ReactElement } from 'react'
import { useTranslation } from 'react-i18next'
import { useName } from '../i18n/names'
import { useSession, useSessionState } from './session'

const useStyles = makeStyles({ who: { padding: `${tokens.spacingVerticalS} ${tokens.spacingHorizontalM}`, display: 'flex', flexDirection: 'column' } })

/** Who is signed in, and the way out. */
export default function UserMenuList({ trigger }: { trigger: ReactElement<ButtonProps> }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const { user } = useSession()
  const { signOut } = useSessionState()
  return (
    <Menu defaultOpen>
      <MenuTrigger disableButtonEnhancement>{trigger}</MenuTrigger>
      <MenuPopover>
        <div className={styles.who}>
          <Text weight="semibold">{user.name}</Text>
          <Text size={200}>{name('userRole', user.role)}</Text>
        </div>
        <MenuList>
          <MenuItem icon={<SignOutRegular />} onClick={signOut} data-testid="sign-out">{t('user.signOut')}</MenuItem>
        </MenuList>
      </MenuPopover>
    </Menu>
  )
}
