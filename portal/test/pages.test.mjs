// Every page in every language and theme: it shows its data, axe finds nothing,
// the browser complains about nothing. Pictures are left for people.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { launch, open, pictures, signIn, violations } from './browser.mjs'
import { start } from './fixture/server.mjs'

let browser
let full
let empty
before(async () => {
  [browser, full, empty] = await Promise.all([launch(), start(), start({ empty: true, plan: { servers: false, tier: 'P2' } })])
})
after(async () => {
  await Promise.all([browser.close(), full.close(), empty.close()])
  console.log(`pictures of the pages are in ${pictures}`)
})

const rooms = [
  { name: 'home', path: '/', shows: 'incident-row' },
  { name: 'incidents', path: '/incidents', shows: 'incident-row' },
  { name: 'incident', path: '/incidents/11', shows: 'graph-node' },
  { name: 'incident-alerts', path: '/incidents/11', tab: 'tab-alerts', shows: 'alert-row' },
  { name: 'incident-activities', path: '/incidents/11', tab: 'tab-activities', shows: 'comment-text' },
  { name: 'incident-assets', path: '/incidents/11', tab: 'tab-assets', shows: 'asset-device' },
  { name: 'incident-evidence', path: '/incidents/11', tab: 'tab-evidence', shows: 'evidence-row' },
  { name: 'alerts', path: '/alerts', shows: 'alert-row' },
  { name: 'alert', path: '/alerts/a2', shows: 'process-node' },
  { name: 'devices', path: '/devices', shows: 'device-row' },
  { name: 'device', path: '/devices/d1', shows: 'extension-state' },
  { name: 'device-broken', path: '/devices/d2', shows: 'extension-state' },
  { name: 'device-alerts', path: '/devices/d1', tab: 'tab-alerts', shows: 'alert-row' },
  { name: 'device-timeline', path: '/devices/d1', tab: 'tab-timeline', shows: 'timeline-row' },
  { name: 'device-agent', path: '/devices/d2', tab: 'tab-agent', shows: 'page-title' },
  { name: 'device-tests', path: '/devices/d2', tab: 'tab-tests', shows: 'test-row' },
  { name: 'device-policy', path: '/devices/d1', tab: 'tab-policy', shows: 'applied-row' },
  { name: 'policies', path: '/policies', shows: 'policy-row' },
  { name: 'policy', path: '/policies/p1', shows: 'setting-scanSchedule' },
  { name: 'policy-exclusions', path: '/policies/p2', shows: 'exclusion-row' },
  { name: 'policy-edr', path: '/policies/p3', shows: 'setting-telemetry' },
  { name: 'policy-new', path: '/policies/new?type=antivirus', shows: 'setting-scanArchives' },
  { name: 'groups', path: '/groups', shows: 'group-row' },
  { name: 'users', path: '/settings/users', shows: 'user-row' },
  { name: 'tokens', path: '/settings/tokens', shows: 'api-token-row' },
  { name: 'audit', path: '/settings/audit', shows: 'audit-row' },
  { name: 'notifications', path: '/settings/notifications', shows: 'notification-row' },
  { name: 'environments', path: '/environments', shows: 'environment-row' },
  { name: 'environment', path: '/environments/e1', shows: 'plan-switch' },
  { name: 'machines', path: '/environments/e1?tab=machines', shows: 'machine-row' },
  { name: 'machines-failed', path: '/environments/e1?tab=machines&state=failed', shows: 'machine-row' },
  { name: 'machine', path: '/environments/e1?tab=machines&machine=m12', shows: 'journal-line' },
  { name: 'machine-failed', path: '/environments/e1?tab=machines&state=failed&machine=m3', shows: 'journal-line' },
  { name: 'connectors', path: '/environments/e1?tab=connectors', shows: 'connector-row' },
  { name: 'connector', path: '/environments/e1/connectors/c1', shows: 'host-key-row' },
  { name: 'connector-key', path: '/environments/e1/connectors/c2', shows: 'connector-key-stored' },
  { name: 'connector-new', path: '/environments/e1/connectors/new?kind=ssh', shows: 'push-command' },
  { name: 'connector-azure', path: '/environments/e1/connectors/c3', shows: 'connector-unverified' },
  { name: 'connector-aws', path: '/environments/e1/connectors/new?kind=aws', shows: 'cloud-certificates' },
  { name: 'connector-gcp', path: '/environments/e1/connectors/new?kind=gcp', shows: 'cloud-serviceAccountKey' },
  { name: 'onboarding', path: '/environments/e1?tab=onboarding', shows: 'reason-row' },
  { name: 'join-tokens', path: '/environments/e1?tab=tokens', shows: 'token-create' },
  { name: 'coverage', path: '/environments/e1?tab=coverage', shows: 'coverage-at' },
  { name: 'upgrades', path: '/upgrades', shows: 'package-row' },
  { name: 'not-found', path: '/nowhere', shows: 'not-found' },
]

const bare = [
  { name: 'home-empty', path: '/', shows: 'home-protected' },
  { name: 'start', path: '/start', shows: 'start-plan' },
  { name: 'incidents-empty', path: '/incidents', shows: 'empty' },
  { name: 'alerts-empty', path: '/alerts', shows: 'empty' },
  { name: 'devices-empty', path: '/devices', shows: 'empty' },
  { name: 'policies-empty', path: '/policies', shows: 'empty' },
  { name: 'groups-empty', path: '/groups', shows: 'empty' },
  { name: 'tokens-empty', path: '/settings/tokens', shows: 'empty' },
  { name: 'notifications-empty', path: '/settings/notifications', shows: 'empty' },
  { name: 'environment-off', path: '/environments/e1', shows: 'plan-switch' },
  { name: 'machines-empty', path: '/environments/e1?tab=machines', shows: 'empty' },
  { name: 'connectors-empty', path: '/environments/e1?tab=connectors', shows: 'empty' },
  { name: 'onboarding-empty', path: '/environments/e1?tab=onboarding', shows: 'count-succeeded' },
  { name: 'coverage-empty', path: '/environments/e1?tab=coverage', shows: 'empty' },
  { name: 'upgrades-empty', path: '/upgrades', shows: 'ring-row' },
  { name: 'device-missing', path: '/devices/none', shows: 'failure' },
]

// look checks the page as it stands and takes its picture.
async function look(page, name, language, theme) {
  await page.screenshot({ path: join(pictures, `${name}-${language}-${theme}.png`) })
  // Contrast is the theme's and names are the language's: two of the four tell of both.
  if ((language === 'en') === (theme === 'light')) assert.deepEqual(await violations(page), [], `${name} ${language} ${theme}`)
  const text = await page.locator('body').innerText()
  assert.doesNotMatch(text, /\b(nav|action|alert|device|event|home|incident|list|overview|plan|policies|groups|applied|users|tokens|audit|notifications|admin|state|title|token|machine|connector|onboarding|environment|upgrade|coverageTime|reason)\.[a-z][A-Za-z]+\b|\{\{|undefined|\[object|NaN/, `${name} ${language}: a text is missing`)
  assert.equal(await page.evaluate(() => document.documentElement.lang), language)
  assert.match(await page.title(), /Komainu/)
  assert.equal(await page.locator('h1').count(), 1, `${name}: one heading of the first level`)
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} ${language}: the page is wider than the window`)
}

// Going there as a link does it takes half the time of loading the page anew.
async function visit(server, room, page, language, theme) {
  for (const path of ['/nowhere', room.path]) {
    await page.evaluate((to) => {
      history.pushState({ idx: history.state.idx + 1, key: to, usr: null }, '', to)
      dispatchEvent(new PopStateEvent('popstate', { state: history.state }))
    }, path)
    // Nothing of the room before can be taken for this one.
    if (path === '/nowhere') await page.getByTestId('not-found').waitFor()
  }
  if (room.tab) await page.getByTestId(room.tab).click()
  await page.getByTestId(room.shows).first().waitFor()
  await look(page, room.name, language, theme)
}

// Each of the four has a context of its own, so they need not wait for each other.
describe('languages and themes', { concurrency: 2 }, () => {
  for (const language of ['en', 'ja']) {
    for (const theme of ['light', 'dark']) {
      test(`every page, ${language}, ${theme}`, async (t) => {
        const view = await open(browser, { language, theme })
        const { page, complaints } = view
        await t.test('sign-in', async () => {
          await page.goto(full.url)
          await page.getByTestId('signin-name').waitFor()
          await look(page, 'signin', language, theme)
        })
        await signIn(page, full.url)
          for (const room of rooms) await t.test(room.name, () => visit(full, room, page, language, theme))
        await t.test('event panel', async () => {
          await page.goto(`${full.url}/devices/d1?tab=timeline`)
          await page.getByTestId('timeline-row').nth(3).getByRole('button').first().click()
          await page.getByTestId('event-panel').waitFor()
          await look(page, 'event-panel', language, theme)
        })
        await t.test('manage panel', async () => {
          await page.goto(`${full.url}/incidents/11`)
          await page.getByTestId('manage').click()
          await page.getByTestId('manage-save').waitFor()
          await look(page, 'manage-panel', language, theme)
        })
        await t.test('change plan', async () => {
          await page.goto(`${full.url}/environments/e1`)
          await page.getByTestId('change-plan').click()
          await page.getByTestId('capability-row').first().waitFor()
          await look(page, 'plan-dialog', language, theme)
        })
        await t.test('preview', async () => {
          await page.goto(`${full.url}/environments/e1?tab=onboarding`)
          await page.getByTestId('preview').click()
          await page.getByTestId('preview-row').first().waitFor()
          await look(page, 'preview', language, theme)
        })
        await t.test('selection', async () => {
          await page.goto(`${full.url}/environments/e1?tab=machines&state=failed`)
          await page.getByTestId('select-all').click()
          await page.getByTestId('bulk-offboard').click()
          await page.getByTestId('offboard-reason').waitFor()
          await look(page, 'machines-offboard', language, theme)
        })
        await t.test('connector test', async () => {
          await page.goto(`${full.url}/environments/e1/connectors/c2`)
          await page.getByTestId('connector-test').click()
          await page.getByTestId('tried-row').first().waitFor()
          await page.getByTestId('tried-row').first().scrollIntoViewIfNeeded()
          await look(page, 'connector-tested', language, theme)
        })
        await t.test('snippets', async () => {
          await page.goto(`${full.url}/environments/e1?tab=tokens`)
          await page.getByTestId('token-create').click()
          await page.getByTestId('token-create-confirm').click()
          await page.getByTestId('token-way-ansible').click()
          await look(page, 'snippets', language, theme)
        })
        await t.test('create environment', async () => {
          await page.goto(`${full.url}/environments`)
          await page.getByTestId('environment-create').click()
          await page.getByTestId('environment-kind').selectOption('azure')
          await look(page, 'environment-dialog', language, theme)
        })
        await signIn(page, empty.url)
        await page.getByTestId('home-protected').waitFor()
        for (const room of bare) await t.test(room.name, () => visit(empty, room, page, language, theme))
        assert.deepEqual(complaints, [])
        await view.close()
      })
    }
  }
})

test('a narrow window', async () => {
  const view = await open(browser, { language: 'ja', width: 800, height: 900 })
  await signIn(view.page, full.url)
  for (const room of rooms.filter((r) => ['home', 'devices', 'alert', 'device', 'environment', 'machines', 'machine-failed', 'connector', 'onboarding', 'upgrades'].includes(r.name))) {
    await visit(full, { ...room, name: `narrow-${room.name}` }, view.page, 'ja', 'light')
  }
  await view.close()
})
