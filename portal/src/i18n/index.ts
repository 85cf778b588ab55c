// The languages. English is the source; a catalogue is loaded when it is
// chosen, so that nobody downloads the other. What only some pages say is a
// part of its own, which comes with them.
import i18next from 'i18next'
import { initReactI18next } from 'react-i18next'
import type deployment from './deployment.en.json'
import type english from './en.json'

export type Catalogue = typeof english & typeof deployment
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

const parts = {
  deployment: { en: () => import('./deployment.en.json'), ja: () => import('./deployment.ja.json') },
} satisfies Record<string, Record<Language, () => Promise<{ default: unknown }>>>

export type Part = keyof typeof parts

/** The parts that pages have asked for, which another language needs as well. */
const wanted = new Set<Part>()
const loaded = new Set<string>()

async function load(language: Language) {
  if (!i18next.hasResourceBundle(language, 'translation')) {
    i18next.addResourceBundle(language, 'translation', (await catalogues[language]()).default)
  }
  await Promise.all([...wanted].map((part) => loadPart(part, language)))
}

async function loadPart(part: Part, language: Language) {
  const key = `${part} ${language}`
  if (loaded.has(key)) return
  const { default: texts } = await parts[part][language]()
  loaded.add(key)
  i18next.addResourceBundle(language, 'translation', texts, true)
}

/** Loads a part of the catalogue, in this language and in those that are switched to later. */
export async function loadTexts(part: Part) {
  wanted.add(part)
  await loadPart(part, i18next.language as Language)
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
