// What a person chose for this browser: language and theme.
import { createContext, useCallback, useContext, useEffect, useMemo, useState, type ReactNode } from 'react'
import { languages, switchLanguage, type Language } from '../i18n'

export type Theme = 'system' | 'light' | 'dark'

const themes: Theme[] = ['system', 'light', 'dark']
const languageKey = 'komainu.language'
const themeKey = 'komainu.theme'

function read<T extends string>(key: string, allowed: T[]): T | undefined {
  try {
    const value = localStorage.getItem(key) as T | null
    return value && allowed.includes(value) ? value : undefined
  } catch {
    return undefined // storage may be forbidden
  }
}

function write(key: string, value: string) {
  try {
    localStorage.setItem(key, value)
  } catch {
    // the choice then lasts as long as the page
  }
}

/** The language to begin with: the chosen one, else the browser's. */
export function firstLanguage(): Language {
  return read(languageKey, languages) ?? (navigator.language.toLowerCase().startsWith('ja') ? 'ja' : 'en')
}

interface Preferences {
  language: Language
  setLanguage: (language: Language) => void
  theme: Theme
  setTheme: (theme: Theme) => void
  dark: boolean
}

const Context = createContext<Preferences | undefined>(undefined)

const systemDark = window.matchMedia('(prefers-color-scheme: dark)')

export function PreferencesProvider({ children }: { children: ReactNode }) {
  const [language, setLanguageState] = useState(firstLanguage)
  const [theme, setThemeState] = useState<Theme>(() => read(themeKey, themes) ?? 'system')
  const [system, setSystem] = useState(systemDark.matches)

  useEffect(() => {
    const changed = () => setSystem(systemDark.matches)
    systemDark.addEventListener('change', changed)
    return () => systemDark.removeEventListener('change', changed)
  }, [])

  const dark = theme === 'dark' || (theme === 'system' && system)
  useEffect(() => {
    document.documentElement.style.colorScheme = dark ? 'dark' : 'light'
  }, [dark])

  const setLanguage = useCallback((next: Language) => {
    write(languageKey, next)
    void switchLanguage(next).then(() => setLanguageState(next))
  }, [])
  const setTheme = useCallback((next: Theme) => {
    write(themeKey, next)
    setThemeState(next)
  }, [])

  const value = useMemo(() => ({ language, setLanguage, theme, setTheme, dark }), [language, setLanguage, theme, setTheme, dark])
  return <Context value={value}>{children}</Context>
}

export function usePreferences(): Preferences {
  const value = useContext(Context)
  if (!value) throw new Error('usePreferences outside of PreferencesProvider')
  return value
}
