import { Button } from '@fluentui/react-components'
import { LocalLanguageRegular } from '@fluentui/react-icons/svg/local-language'
import { useTranslation } from 'react-i18next'
import { HeaderMenu } from './HeaderMenu'

/** Language and theme, also for people who are not signed in. */
export function PreferenceMenu() {
  const { t } = useTranslation()
  return (
    <HeaderMenu
      load={() => import('./PreferenceMenuList')}
      trigger={<Button appearance="transparent" icon={<LocalLanguageRegular />} aria-label={t('preference.menu')} data-testid="preference-menu" />}
    />
  )
}
