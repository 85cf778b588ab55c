// The languages. English is the source; a catalogue is loaded when it is
// chosen, so that nobody downloads the other.
import i18next from 'i18next'
import { initReactI18next } from 'react-i18next'
import type english from './en.json'

export type Catalogue = typeof english
export type Language = 'en' | 'ja'

export const languages: Language[] = ['en', 'ja']

declare module 'i18next' {
  interface CustomTypeOptions {
    defaultNS: 'translation'
    resources: { translation: Catalogue }
  }
}

const catalogues: Record<Language, () => Promise<{ default: unknown }>> = {
  en: () => import('./en.json'),
  ja: () => import('./ja.json'),
}

async function load(language: Language) {
  if (i18next.hasResourceBundle(language, 'translation')) return
  i18next.addResourceBundle(language, 'translation', (await catalogues[language]()).default)
}

/** Starts the translation with one language. */
export async function startLanguage(language: Language) {
  await i18next.use(initReactI18next).init({
    lng: language,
    fallbackLng: false,
    resources: {},
    interpolation: { escapeValue: false }, // React escapes
    returnNull: false,
  })
  await load(language)
  await switchLanguage(language)
}

/** Switches the language of the page. */
export async function switchLanguage(language: Language) {
  await load(language)
  await i18next.changeLanguage(language)
  document.documentElement.lang = language
}
