import { Menu, MenuDivider, MenuGroup, MenuGroupHeader, MenuItemRadio, MenuList, MenuPopover, MenuTrigger, type ButtonProps } from '@fluentui/react-components'
import type { ReactElement } from 'react'
import { useTranslation } from 'react-i18next'
import type { Language } from '../i18n'
import { usePreferences, type Theme } from './preferences'

export default function PreferenceMenuList({ trigger }: { trigger: ReactElement<ButtonProps> }) {
  const { t } = useTranslation()
  const { language, setLanguage, theme, setTheme } = usePreferences()
  return (
    <Menu
      defaultOpen checkedValues={{ language: [language], theme: [theme] }}
      onCheckedValueChange={(_, { name, checkedItems }) => {
        const value = checkedItems[0]
        if (name === 'language') setLanguage(value as Language)
        if (name === 'theme') setTheme(value as Theme)
      }}
    >
      <MenuTrigger disableButtonEnhancement>{trigger}</MenuTrigger>
      <MenuPopover>
        <MenuList>
          <MenuGroup>
            <MenuGroupHeader>{t('preference.language')}</MenuGroupHeader>
            {/* A language is named in itself, for those who can read no other. */}
            <MenuItemRadio name="language" value="en" lang="en" data-testid="language-en">{t('preference.en')}</MenuItemRadio>
            <MenuItemRadio name="language" value="ja" lang="ja" data-testid="language-ja">{t('preference.ja')}</MenuItemRadio>
          </MenuGroup>
          <MenuDivider />
          <MenuGroup>
            <MenuGroupHeader>{t('preference.theme')}</MenuGroupHeader>
            <MenuItemRadio name="theme" value="system" data-testid="theme-system">{t('preference.system')}</MenuItemRadio>
            <MenuItemRadio name="theme" value="light" data-testid="theme-light">{t('preference.light')}</MenuItemRadio>
            <MenuItemRadio name="theme" value="dark" data-testid="theme-dark">{t('preference.dark')}</MenuItemRadio>
          </MenuGroup>
        </MenuList>
      </MenuPopover>
    </Menu>
  )
}
