// One Chromium for a test file, and what every test of a page needs.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before } from 'node:test'
import { chromium } from 'playwright-core'
import { password, start } from './fixture/server.mjs'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** Where the pictures go: KOMAINU_SCREENSHOTS, or a folder of this run. */
export const pictures = process.env.KOMAINU_SCREENSHOTS ?? mkdtempSync(join(tmpdir(), 'komainu-portal-'))

export const launch = () => chromium.launch({
  executablePath: process.env.KOMAINU_CHROMIUM ?? '/usr/bin/chromium-headless-shell',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})

/** A page with its own storage. It remembers what the browser complained about. */
export async function open(browser, { language = 'en', theme = 'light', width = 1440, height = 900 } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, locale: language, permissions: ['clipboard-read', 'clipboard-write'], reducedMotion: 'reduce', timezoneId: 'Asia/Tokyo' })
  await context.addInitScript(([l, t]) => {
    if (localStorage.getItem('komainu.language') === null) localStorage.setItem('komainu.language', l)
    if (localStorage.getItem('komainu.theme') === null) localStorage.setItem('komainu.theme', t)
  }, [language, theme])
  const page = await context.newPage()
  // Generous: the tests share their machine with builds.
  page.setDefaultTimeout(30_000)
  const complaints = []
  page.on('pageerror', (e) => complaints.push(e.message))
  // An answer that refuses is in the console too, and wanted in some tests.
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && !m.text().startsWith('Failed to load resource') && complaints.push(m.text()))
  // A dialog that goes with its page can leave the next one hidden from screen
  // readers.
  const heard = () => document.querySelector('[role=dialog], [role=alertdialog]') !== null || document.querySelector('#root')?.getAttribute('aria-hidden') !== 'true'
  const close = async () => {
    try {
      await page.waitForFunction(heard)
    } finally {
      await context.close()
    }
  }
  return { page, complaints, close }
}

/** Signs in and waits until the portal is entered. */
export async function signIn(page, url, secret = password) {
  await page.goto(`${url}/signin`)
  await page.getByTestId('signin-name').fill('admin')
  await page.getByTestId('signin-password').fill(secret)
  await page.getByTestId('signin-submit').click()
  await page.getByTestId('user-menu').waitFor()
}

/**
 * Gives every test of a file a control plane of its own and a signed-in page,
 * with one browser for all of them. What it returns begins a test at a path.
 */
export function suite() {
  let browser
  let server
  let view
  before(async () => {
    browser = await launch()
  })
  after(() => browser.close())
  afterEach(async () => {
    try {
      await view.close()
    } finally {
      await server.close()
    }
    assert.deepEqual(view.complaints, [])
  })
  return async (path, options) => {
    server = await start(options)
    view = await open(browser)
    await signIn(view.page, server.url)
    await view.page.getByTestId('home-protected').waitFor()
    await view.page.goto(server.url + path)
    return { server, view, page: view.page }
  }
}

/** What axe finds wrong on the page as it stands. */
export async function violations(page) {
  // Fluent keeps the focus within dialogs and tab lists by elements that axe takes
  // for a mistake; they are its dummies. Evaluated, not added as an element: the policy of the pages forbids the latter.
  await page.evaluate(axe)
  const result = await page.evaluate(() => globalThis.axe.run({ exclude: ['[data-tabster-dummy]'] }, { resultTypes: ['violations'] }))
  return result.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 4).map((n) => `${n.target.join(' ')} ${n.any[0]?.message ?? n.failureSummary ?? ''}`).join(' | ')}`)
}
