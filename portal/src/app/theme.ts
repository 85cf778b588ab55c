import { webDarkTheme, webLightTheme, type Theme } from '@fluentui/react-components'

// Fluent's fonts know no Japanese ones; without them a browser may choose
// Chinese shapes for the characters both share.
const fontFamilyBase = "'Segoe UI', 'Segoe UI Web (West European)', -apple-system, BlinkMacSystemFont, Roboto, 'Helvetica Neue', "
  + "'Yu Gothic UI', 'Hiragino Sans', Meiryo, 'Noto Sans CJK JP', 'Noto Sans JP', sans-serif"

const fontFamilyMonospace = "Consolas, 'Cascadia Mono', 'Liberation Mono', 'DejaVu Sans Mono', 'Noto Sans Mono CJK JP', monospace"

export const lightTheme: Theme = { ...webLightTheme, fontFamilyBase, fontFamilyMonospace }

export const darkTheme: Theme = { ...webDarkTheme, fontFamilyBase, fontFamilyMonospace }
