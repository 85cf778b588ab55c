// The catalogues are complete, and the pages have no text of their own.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseAst } from 'vite'

const sources = join(import.meta.dirname, '..', 'src')

// What is loaded with some pages lies over what is always there, as in the portal.
const lay = (under, over) => Object.entries(over).reduce((all, [key, value]) => {
  assert.ok(typeof value !== 'string' || all[key] === undefined, `${key} is in both parts of the catalogue`)
  return { ...all, [key]: typeof value === 'string' ? value : lay(all[key] ?? {}, value) }
}, under)
const catalogue = (language) => ['', 'deployment.'].map((part) => JSON.parse(readFileSync(join(sources, 'i18n', `${part}${language}.json`), 'utf8'))).reduce(lay, {})
const english = catalogue('en')
const japanese = catalogue('ja')

const files = readdirSync(sources, { recursive: true })
  .filter((name) => /\.tsx?$/.test(name))
  .map((name) => ({ name, text: readFileSync(join(sources, name), 'utf8') }))

// flatten gives every text its path; the keys of names may hold dots, so the
// parts are kept apart.
function flatten(tree, path = []) {
  return Object.entries(tree).flatMap(([key, value]) => (typeof value === 'string' ? [[[...path, key], value]] : flatten(value, [...path, key])))
}

// withoutPlural takes the grammatical number off: English has two, Japanese one.
const withoutPlural = (key) => key.replace(/_(one|other)$/, '')

const keysOf = (catalogue) => new Set(flatten(catalogue).map(([path]) => withoutPlural(path.join('.'))))
const placeholders = (text) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((m) => m[1]).sort().join(' ')

test('both languages have the same keys', () => {
  assert.deepEqual([...keysOf(english)].sort(), [...keysOf(japanese)].sort())
})

test('every plural form that a language needs is there', () => {
  for (const [language, catalogue] of [['en', english], ['ja', japanese]]) {
    const needed = new Intl.PluralRules(language).resolvedOptions().pluralCategories
    const paths = flatten(catalogue).map(([path]) => path.join('.'))
    for (const path of paths.filter((p) => /_(one|other)$/.test(p))) {
      for (const form of needed) assert.ok(paths.includes(`${withoutPlural(path)}_${form}`), `${language}: ${withoutPlural(path)}_${form} is missing`)
    }
  }
})

test('both languages fill in the same values', () => {
  const japaneseTexts = new Map(flatten(japanese).map(([path, text]) => [withoutPlural(path.join('.')), text]))
  for (const [path, text] of flatten(english)) {
    const key = path.join('.')
    if (key.endsWith('_one')) continue
    assert.equal(placeholders(japaneseTexts.get(withoutPlural(key))), placeholders(text), key)
  }
})

test('no text is empty, and Japanese is Japanese', () => {
  const kana = /[\u3040-\u30ff\u4e00-\u9fff]/
  // What is left of a text without its values and without what is written
  // alike in both languages.
  const rest = (text) => text.replace(/\{\{\w+\}\}/g, '').replace(/English|EDR|ID|PID|SHA-(1|256)|MD5|URL|DNS|TTY|MITRE ATT&CK|IPv?[46]?|JSON|MB|P[12]/g, '')
  for (const [path, text] of flatten(english)) assert.notEqual(text.trim(), '', `en: ${path.join('.')}`)
  for (const [path, text] of flatten(japanese)) {
    assert.notEqual(text.trim(), '', `ja: ${path.join('.')}`)
    assert.ok(kana.test(text) || !/\p{L}/u.test(rest(text)), `ja: ${path.join('.')} is not translated: ${text}`)
  }
})

const code = files.map((file) => file.text).join('\n')

test('every key that is used exists', () => {
  const known = keysOf(english)
  for (const { name, text } of files) {
    for (const [, key] of text.matchAll(/\bt\(\s*'([^']+)'/g)) assert.ok(known.has(key), `${name}: ${key}`)
    // A key that is put together could not be checked, so there is none.
    assert.doesNotMatch(text, /\bt\(\s*`/, `${name}: a key is put together`)
    for (const [, family] of text.matchAll(/\bname\(\s*'([^']+)'/g)) assert.ok(english.names[family], `${name}: names.${family}`)
  }
})

test('every key is used', () => {
  const literals = new Set([...code.matchAll(/'([\w.]+)'/g)].map((m) => m[1]))
  for (const key of keysOf(english)) {
    if (key.startsWith('names.')) continue
    assert.ok(literals.has(key), `${key} is used nowhere`)
  }
  for (const family of Object.keys(english.names)) assert.ok(literals.has(family) || code.includes(`names.${family}`), `names.${family} is used nowhere`)
})

test('every change that the control plane records has a name', () => {
  const root = join(import.meta.dirname, '..', '..', 'control')
  const go = readdirSync(root, { recursive: true }).filter((f) => f.endsWith('.go') && !f.endsWith('_test.go')).map((f) => readFileSync(join(root, f), 'utf8')).join('\n')
  const recorded = new Set([...go.matchAll(/"((?:session|user|token|plan|environment|join_token|device|policy|device_group|alert|incident|notification|backup|ca|machine|connector|onboarding|upgrade|content)\.(?!key|pem|service)[a-z_]+)"/g)].map((m) => m[1]))
  // What happened by itself is told in the past tense, and is not in the log.
  const permissions = new Set([...go.matchAll(/rest\.Permission\s*=\s*"([\w.]+)"/g)].map((m) => m[1]))
  assert.ok(recorded.size > 20, 'the actions were not found')
  for (const action of [...recorded].filter((a) => !permissions.has(a) && !a.endsWith('ed'))) assert.ok(english.names.auditAction[action], `names.auditAction.${action}`)
})

// walk visits every node of a syntax tree.
function walk(node, visit) {
  if (node === null || typeof node !== 'object') return
  if (typeof node.type === 'string') visit(node)
  for (const child of Object.values(node)) walk(child, visit)
}

test('pages have no text of their own', () => {
  const letter = /\p{L}/u
  const spoken = ['aria-label', 'aria-description', 'title', 'placeholder', 'label', 'alt', 'header', 'hint', 'validationMessage']
  for (const { name, text } of files.filter((file) => file.name.endsWith('.tsx'))) {
    walk(parseAst(text, { lang: 'tsx' }), (node) => {
      if (node.type === 'JSXText') assert.doesNotMatch(node.value, letter, `${name}: ${node.value.trim()}`)
      if (node.type !== 'JSXAttribute' || !spoken.includes(node.name.name)) return
      const value = node.value?.type === 'JSXExpressionContainer' ? node.value.expression : node.value
      if (value?.type === 'Literal' && typeof value.value === 'string') assert.doesNotMatch(value.value, letter, `${name}: ${node.name.name}="${value.value}"`)
    })
  }
})

test('every action of the vocabulary has a name', () => {
  const go = readFileSync(join(import.meta.dirname, '..', '..', 'event', 'action.go'), 'utf8')
  const actions = [...go.matchAll(/\bAction\s*=\s*"(\w+)"/g)].map((m) => m[1])
  assert.ok(actions.length > 30, 'the actions were not found')
  for (const action of actions) assert.ok(english.names.action[action], `names.action.${action}`)
})

test('every field of the health report has a name', () => {
  const go = readFileSync(join(import.meta.dirname, '..', '..', 'health', 'health.go'), 'utf8')
  const report = go.slice(go.indexOf('type Report struct'))
  const besides = ['managed', 'conditions', 'settings', 'time', 'key', 'value']
  const fields = [...report.slice(0, report.indexOf('\n}')).matchAll(/json:"(\w+)/g)].map((m) => m[1]).filter((f) => !besides.includes(f))
  assert.ok(fields.length > 20, 'the fields were not found')
  for (const field of fields) assert.ok(english.names.healthField[field], `names.healthField.${field}`)
})

// constants reads the values of the string constants of a type.
const constants = (file, type) => {
  const go = readFileSync(join(import.meta.dirname, '..', '..', ...file.split('/')), 'utf8')
  const found = [...go.matchAll(new RegExp(`\\b${type}\\s*=\\s*"(\\w+)"`, 'g'))].map((m) => m[1])
  assert.ok(found.length > 10, `the constants of ${type} were not found`)
  return found
}

test('every reason that an agent or the control plane gives has words', () => {
  for (const code of constants('health/health.go', 'Code')) assert.ok(english.names.conditionReason[code], `names.conditionReason.${code}`)
  for (const reason of constants('control/device/coverage.go', 'Reason')) assert.ok(english.names.coverageReason[reason], `names.coverageReason.${reason}`)
  for (const reason of constants('drill/drill.go', 'ReasonID')) assert.ok(english.names.testReason[reason], `names.testReason.${reason}`)
  for (const reason of constants('deploy/reasons.go', 'ReasonID')) {
    assert.ok(english.names.deployReason[reason], `names.deployReason.${reason}`)
    assert.ok(english.names.deployRemedy[reason], `names.deployRemedy.${reason}`)
  }
})

test('every state and step of a deployment has a name', () => {
  const go = readFileSync(join(import.meta.dirname, '..', '..', 'deploy', 'deploy.go'), 'utf8')
  for (const [type, family] of [['State', 'machineState'], ['Step', 'deployStep']]) {
    const found = [...go.matchAll(new RegExp(`\\b${type}\\s*=\\s*"(\\w+)"`, 'g'))].map((m) => m[1])
    assert.ok(found.length > 5, `the constants of ${type} were not found`)
    for (const value of found) assert.ok(english.names[family][value], `names.${family}.${value}`)
  }
})
