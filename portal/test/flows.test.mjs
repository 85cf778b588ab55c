// What people do in the portal, from the first sign-in on.
import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { launch, open, signIn } from './browser.mjs'
import { readFile } from 'node:fs/promises'
import { alerts, devices } from './fixture/data.mjs'
import { password, start } from './fixture/server.mjs'

let browser
before(async () => {
  browser = await launch()
})
after(() => browser.close())

let server
let view
let page
async function begin(options, look) {
  server = await start(options)
  view = await open(browser, look)
  page = view.page
}
beforeEach(() => {
  server = view = page = undefined
})
afterEach(async () => {
  const complaints = view?.complaints ?? []
  await view?.close()
  await server?.close()
  assert.deepEqual(complaints, [])
})

const at = (id) => page.getByTestId(id)
const text = (id) => at(id).first().innerText()

/** Signs in and waits for the first page. */
async function enter() {
  await signIn(page, server.url)
  await at('home-protected').waitFor()
}

test('first sign-in: wrong password, one-time password, own password', async () => {
  await begin({ mustChangePassword: true })
  await page.goto(`${server.url}/devices/d1?tab=timeline`)
  await at('signin-name').fill('admin')
  await at('signin-password').fill('wrong')
  await at('signin-submit').click()
  assert.match(await text('signin-error'), /wrong/)
  await at('signin-password').fill(password)
  await at('signin-submit').click()
  await at('password-current').fill(password)
  await at('password-new').fill('short')
  await at('password-repeat').fill('short')
  await at('password-submit').click()
  await page.getByText('too short').waitFor()
  await at('password-new').fill('a much longer passphrase')
  await at('password-repeat').fill('a much longer passphrasE')
  await at('password-submit').click()
  assert.equal(server.state.mustChangePassword, true, 'nothing is sent while the entries differ')
  await at('password-repeat').fill('a much longer passphrase')
  await at('password-submit').click()
  // The way leads back to where the person wanted to go.
  await at('timeline-row').first().waitFor()
  assert.equal(new URL(page.url()).pathname, '/devices/d1')
  await at('user-menu').click()
  await at('sign-out').click()
  await at('signin-name').waitFor()
  assert.equal(server.state.sessions.size, 0)
})

test('a redirect after sign-in stays within the portal', async () => {
  await begin()
  await page.goto(`${server.url}/signin?to=${encodeURIComponent('//elsewhere.example/')}`)
  await at('signin-name').fill('admin')
  await at('signin-password').fill(password)
  await at('signin-submit').click()
  await at('home-protected').waitFor()
  assert.equal(page.url(), `${server.url}/`)
})

test('language and theme are chosen before sign-in and kept', async () => {
  await begin()
  await page.goto(server.url)
  await at('preference-menu').click()
  await at('language-ja').click()
  await page.getByRole('heading', { name: 'サインイン' }).waitFor()
  await page.keyboard.press('Escape')
  await at('preference-menu').click()
  await at('theme-dark').click()
  await page.keyboard.press('Escape')
  await page.reload()
  await page.getByRole('heading', { name: 'サインイン' }).waitFor()
  assert.equal(await page.evaluate(() => document.documentElement.style.colorScheme), 'dark')
  await enter()
  assert.equal(await text('page-title'), 'ホーム')
})

test('keyboard: skip link, then the content', async () => {
  await begin()
  await enter()
  await page.reload()
  await at('home-protected').waitFor()
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('href')), '#content')
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'content')
})

test('home leads to what its numbers count', async () => {
  await begin({ devices: 400 })
  await enter()
  const number = async (id) => Number((await text(id)).replace(/\D/g, ''))
  for (const id of ['home-protected', 'home-watching', 'home-unprotected', 'home-unlicensed', 'home-reason-silent', 'home-incidents', 'home-severity-Medium']) {
    await page.goto(server.url)
    const counted = await number(id)
    assert.ok(counted > 0, id)
    await at(id).click()
    // The list says how many it has.
    await page.waitForFunction((n) => document.querySelector('[role=table]')?.getAttribute('aria-rowcount') === String(n + 1), counted)
  }
})

test('home follows what changes, and says what to do', async () => {
  await begin()
  await enter()
  assert.match((await at('home-task').allInnerTexts()).join(' | '), /1 device: Real-time protection cannot run/)
  server.state.incidents[1].severity = 'High'
  server.push('incident', '11')
  await at('home-task').filter({ hasText: '1 open incident of high severity' }).waitFor()
})

test('inventory: tabs, rare filters, columns, order, export', async () => {
  await begin({ devices: 400 })
  await enter()
  await page.goto(`${server.url}/devices`)
  await at('device-row').first().waitFor()
  await at('inventory-unprotected').click()
  await page.waitForFunction(() => [...document.querySelectorAll('[data-testid=device-coverage]')].every((e) => e.textContent === 'Not protected'))
  await at('more-filters').click()
  await page.getByLabel('Reason', { exact: true }).selectOption('silent')
  await page.waitForURL(/reason=silent/)
  await at('clear-filters').click()
  await page.waitForFunction(() => document.querySelector('[role=table]')?.getAttribute('aria-rowcount') === '401')
  await at('sort-risk').click()
  await at('sort-risk').click()
  await page.waitForFunction(() => document.querySelector('[data-testid=device-row]')?.textContent.includes('db-primary'))
  assert.equal(await page.getByRole('columnheader', { name: 'Risk level' }).getAttribute('aria-sort'), 'descending')
  await at('columns').click()
  await at('column-kernel').click()
  await page.getByRole('columnheader', { name: 'Kernel' }).waitFor()
  await page.keyboard.press('Escape')
  await page.reload()
  await page.getByRole('columnheader', { name: 'Kernel' }).waitFor()
  // A name that a spreadsheet would calculate is text in the file.
  server.state.devices[7].name = '=HYPERLINK("http://x","y")'
  await at('device-search').fill('hyperlink')
  await page.getByText('=HYPERLINK').waitFor()
  const [file] = await Promise.all([page.waitForEvent('download'), at('export').click()])
  const lines = (await readFile(await file.path(), 'utf8')).trimEnd().split('\r\n')
  assert.equal(lines.length, 2, 'what is filtered is exported')
  assert.match(lines[0], /^\ufeffName,Protection,.*Kernel/)
  assert.ok(lines[1].startsWith(`"'=HYPERLINK(""http://x"",""y"")",Protected,`), lines[1])
})

test('guide: from nothing to the first detection, live', async () => {
  await begin({ empty: true, plan: { servers: false, tier: 'P2' } })
  await enter()
  await at('home-start').click()
  await at('start-plan').click()
  await page.locator('[data-testid=start-1][data-done=true]').waitFor()
  await at('start-token').click()
  assert.match(await text('start-command'), /^echo 'kmj1\..*' \| sudo komainu enrol --token-file -$/)
  await at('start-waiting').waitFor()
  const [device, other] = devices(2)
  device.name = 'first.example.net'
  server.state.devices.push({ ...device, coverage: { state: 'unprotected', reasons: ['not_reported'] } })
  server.push('device', device.id)
  await at('start-device').getByText('Has not reported yet').waitFor()
  server.state.devices[0] = device
  server.push('device', device.id)
  await page.locator('[data-testid=start-3][data-done=true]').waitFor()
  server.state.alerts.push(alerts([device, other])[0])
  server.push('alert', 'a1')
  await at('start-ready').waitFor()
  await at('start-alert').click()
  await at('alert-summary').waitFor()
})

test('plan: on starts as P2, P1 compared and chosen, settings, saved', async () => {
  await begin({ plan: { servers: false, tier: 'P1' } })
  await enter()
  await at('nav-environments').click()
  await at('environment-row').first().getByRole('link').first().click()
  assert.equal(await at('plan-switch').isChecked(), false)
  assert.ok(await at('setting-endpoint_protection').isDisabled())
  assert.match(await text('setting-endpoint_protection-reason'), /plan/i)
  await at('plan-switch').click()
  assert.equal(await text('plan-tier'), 'P2')
  assert.ok(await at('setting-endpoint_protection').isChecked(), 'endpoint protection is on by default')
  assert.ok(await at('setting-file_integrity_monitoring').isEnabled())
  assert.ok(await at('setting-vulnerability_assessment').isDisabled())
  assert.match(await text('setting-vulnerability_assessment-reason'), /Not available in this version/)

  await at('change-plan').click()
  await at('plan-dialog').waitFor()
  await at('capability-row').first().waitFor()
  assert.equal(await at('capability-row').count(), 6)
  await at('plan-choose-P1').check()
  await at('plan-confirm').click()
  await at('plan-dialog').waitFor({ state: 'detached' })
  assert.equal(await text('plan-tier'), 'P1')
  assert.ok(await at('setting-file_integrity_monitoring').isDisabled())
  assert.match(await text('setting-file_integrity_monitoring-reason'), /Requires P2/)

  // A page with changes is not left without a question.
  await at('nav-home').click()
  await at('leave-dialog').waitFor()
  await at('leave-stay').click()
  assert.equal(await text('plan-tier'), 'P1')

  await at('plan-save').click()
  await at('toast').waitFor()
  assert.match(await text('toast'), /saved/i)
  const box = await at('toast').boundingBox()
  assert.ok(box.x > 720 && box.y < 200, 'the message is at the top right')
  assert.deepEqual([server.state.plan.servers, server.state.plan.tier, server.state.plan.chosen.endpoint_protection], [true, 'P1', true])
  await at('nav-home').click()
  await at('home-protected').waitFor()
})

test('plan: a change by somebody else is not overwritten', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/environments/e1`)
  await at('setting-endpoint_protection').click()
  server.state.plan.version += 1
  server.state.plan.tier = 'P1'
  await at('plan-save').click()
  await at('plan-conflict').waitFor()
  assert.equal(server.state.plan.tier, 'P1')
  await at('plan-reload').click()
  await page.getByTestId('plan-tier').filter({ hasText: 'P1' }).waitFor()
  assert.ok(await at('setting-endpoint_protection').isChecked(), 'the draft is gone')
})

test('plan: a reader sees it and changes nothing', async () => {
  await begin({ role: 'reader' })
  await enter()
  await page.goto(`${server.url}/environments/e1`)
  await at('plan-switch').waitFor()
  for (const id of ['plan-switch', 'change-plan', 'setting-endpoint_protection']) assert.ok(await at(id).isDisabled(), id)
  await at('tab-tokens').click()
  assert.ok(await at('token-create').isDisabled())
})

test('join token: shown once with its command, then revoked', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/environments/e1?tab=tokens`)
  await at('token-create').click()
  await at('token-create-confirm').click()
  const token = await text('token-value')
  assert.match(token, /^kmj1\./)
  for (const [way, holds] of [['shell', /install\.sh \| sudo sh/], ['cloudInit', /^#cloud-config\n/], ['ansible', /become: true/], ['image', /--image/], ['installed', /sudo komainu enrol --token-file -$/]]) {
    await at(`token-way-${way}`).click()
    const command = await at('token-command').textContent()
    assert.match(command, holds)
    assert.ok(command.includes(token), way)
    await page.getByRole('button', { name: /^Copy/ }).first().click()
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command)
  }
  await at('token-done').click()
  await at('token-row').waitFor()
  assert.equal(await page.getByText(token).count(), 0, 'it is shown once')
  await at('token-revoke').click()
  await at('confirm').click()
  await at('toast').waitFor()
  assert.equal(server.state.tokens[0].revoked, true)
})

test('devices: ten thousand, searched, filtered, scrolled', async () => {
  await begin({ devices: 10_000 })
  await enter()
  await at('nav-devices').click()
  await at('device-row').first().waitFor()
  assert.ok(await at('device-row').count() < 80, 'only rows in sight are made')
  assert.match(await page.getByRole('table').getAttribute('aria-rowcount'), /^10001$/)
  const before = server.state.requests.filter((r) => r.includes('/devices?')).length
  const table = page.getByRole('group', { name: 'Devices' })
  await table.evaluate((e) => e.scrollTo(0, 3800))
  await page.getByText('web-0102.example.net').waitFor()
  assert.ok(server.state.requests.filter((r) => r.includes('/devices?')).length > before, 'further pages come when they are wanted')
  await at('device-search').fill('web-0777')
  await page.getByText('web-0777.example.net').waitFor()
  assert.equal(await at('device-row').count(), 1)
  assert.match(page.url(), /q=web-0777/)
  await at('device-search').fill('no such device')
  await at('empty').waitFor()
  await at('device-search').fill('')
  await page.getByLabel('Sensor health').selectOption('Misconfigured')
  await page.getByText('build-07.example.net').waitFor()
  await page.waitForFunction(() => document.querySelectorAll('[data-testid=device-row]').length === 1)
  assert.equal(await text('device-health'), 'Misconfigured')
  assert.equal(await text('device-coverage'), 'Not protected')
  await page.getByText('build-07.example.net').click()
  assert.equal(await text('device-name'), 'build-07.example.net')
})

test('device: the agent like an extension, and its report', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/devices/d1`)
  assert.equal(await text('extension-name'), 'Komainu.Linux')
  assert.equal(await text('extension-version'), '0.1.0')
  assert.equal(await text('extension-state'), 'Provisioning succeeded')
  await page.goto(`${server.url}/devices/d2`)
  await page.getByRole('cell', { name: /fanotify permission events are not available/ }).waitFor()
  await page.getByText("See the agent's log").waitFor()
  await page.getByText('raise fs.inotify.max_user_watches').waitFor() // an agent without codes speaks for itself
  await at('tab-agent').click()
  await page.getByText('real_time_protection_subsystem').waitFor()
  assert.match(page.url(), /tab=agent/)
})

test('timeline: older events on scroll, filter, details with raw data', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/devices/d1?tab=timeline`)
  await at('timeline-row').first().waitFor()
  const rows = page.getByRole('group', { name: 'Timeline' })
  await rows.evaluate((e) => e.scrollTo(0, e.scrollHeight))
  await page.waitForFunction(() => document.querySelector('[role=group] [role=table]').parentElement.scrollHeight > 7000)
  await at('timeline-search').fill('EICAR')
  await page.waitForFunction(() => [...document.querySelectorAll('[data-testid=timeline-row]')].every((row) => row.textContent.includes('EICAR')))
  await at('timeline-row').first().getByRole('button').first().click()
  await at('event-panel').waitFor()
  await at('event-panel').getByText('Raw').click()
  assert.equal(JSON.parse(await at('event-raw').innerText()).action, 'AntivirusDetection')
  await page.keyboard.press('Escape')
  await at('event-panel').waitFor({ state: 'detached' })
})

test('incident to alert: tree from the root, evidence, status', async () => {
  await begin({}, { language: 'ja' })
  await enter()
  await at('nav-incidents').click()
  await page.getByTestId('incident-title').filter({ hasText: "'EICAR_Test_File'" }).waitFor()
  assert.equal(await page.getByTestId('incident-title').filter({ hasText: "'EICAR_Test_File'" }).innerText(), "マルウェア 'EICAR_Test_File' が防止されました (1 つのエンドポイント)")
  await page.getByTestId('incident-title').filter({ hasText: '機密データ' }).click()
  await at('story-graph').waitFor()
  await at('tab-alerts').click()
  await at('alert-row').first().waitFor()
  await at('alert-title').filter({ hasText: '機密データを含むファイルの列挙' }).click()
  await at('process-tree').waitFor()
  const nodes = await at('process-node').allInnerTexts()
  assert.equal(nodes.length, 6)
  assert.match(nodes[0], /systemd/)
  assert.match(nodes[4], /cat[\s\S]*\/home\/deploy\/\.ssh\/id_ed25519/)
  assert.equal(await text('alert-severity'), '低')
  assert.equal(await at('evidence-row').count(), 4)
  assert.match((await at('evidence-row').allInnerTexts()).join(' '), /27272727/)
  assert.match(await text('rule-about'), /秘密鍵/)
  assert.match(await text('rule-logic'), /kinds of secrets/)
  await page.getByLabel('状態').selectOption('Resolved')
  await at('toast').waitFor()
  assert.equal(server.state.alerts[1].status, 'Resolved')
})

test('incident: the story, played and chosen from, and the graph by keyboard', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/incidents/11`)
  await at('story-graph').waitFor()
  // Nine files that one process opened are one node until somebody wants them.
  await page.locator('[data-testid=graph-node][data-kind=file]').filter({ hasText: '9 alike' }).waitFor()
  // So are the processes that only lead to the story.
  await page.locator('.react-flow__node').filter({ hasText: '3 ancestors' }).click()
  await page.locator('[data-testid=graph-node]').filter({ hasText: 'sshd' }).waitFor()
  await at('story-alert').filter({ hasText: 'Enumeration' }).click()
  await at('story-open').waitFor()
  const user = page.locator('.react-flow__node').filter({ hasText: 'deploy' }).filter({ hasText: 'User' })
  await user.focus()
  await page.keyboard.press('Enter')
  assert.equal(await text('entity-label'), 'deploy')
  await page.locator('.react-flow__node').filter({ hasText: '9 alike' }).click()
  await page.waitForFunction(() => document.querySelectorAll('[data-testid=graph-node][data-kind=file]').length === 9)
  await at('story-play').click()
  await page.waitForFunction(() => document.querySelector('[data-testid=story-alert]').getAttribute('aria-pressed') === 'true')
  await page.waitForFunction(() => [...document.querySelectorAll('[data-testid=story-alert]')].at(-1).getAttribute('aria-pressed') === 'true')
  await at('tab-assets').click()
  await at('asset-device').first().waitFor()
  await at('tab-evidence').click()
  await at('evidence-row').first().waitFor()
})

test('incident: managed, with what was done on record', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/incidents/11`)
  await at('manage').click()
  await at('manage-name').fill('Break-in over SSH')
  await at('manage-severity').selectOption('High')
  await at('manage-mine').click()
  await at('manage-classification').selectOption('TruePositive/CompromisedUser')
  await at('manage-comment').fill('Keys are being replaced.')
  await at('manage-save').click()
  await at('manage-panel').waitFor({ state: 'detached' })
  const { name, severity, assignee, classification, determination } = server.state.incidents[1]
  assert.deepEqual([name, severity, assignee, classification, determination], ['Break-in over SSH', 'High', 'admin', 'TruePositive', 'CompromisedUser'])
  await page.waitForFunction(() => document.querySelector('[data-testid=page-title]').textContent === 'Break-in over SSH')
  assert.match(await text('incident-classification'), /True positive · Compromised account/)
  await at('tab-activities').click()
  await at('activity-row').first().waitFor()
  assert.match((await at('activity-row').allInnerTexts()).join('\n'), /Severity\s+Medium\s+High/)
  assert.match(await text('comment'), /Keys are being replaced/)
  await at('comment-text').fill('Done.')
  await at('comment-add').click()
  await at('comment').nth(1).waitFor()
  // Only what was changed is sent: a second look changes nothing.
  const sent = server.state.requests.filter((r) => r.startsWith('PATCH')).length
  await at('manage').click()
  await at('manage-save').click()
  await at('manage-panel').waitFor({ state: 'detached' })
  assert.equal(server.state.requests.filter((r) => r.startsWith('PATCH')).length, sent)
})

test('alert: classified and commented; a refusal is said where it happened', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/alerts/a2`)
  await at('manage').click()
  await at('manage-classification').selectOption('InformationalExpectedActivity/SecurityTesting')
  server.state.failures.push([/PATCH/, 422, 'invalid', 'not now'])
  await at('manage-save').click()
  await at('manage-panel').getByText('not now').waitFor()
  server.state.failures.length = 0
  await at('manage-save').click()
  await at('manage-panel').waitFor({ state: 'detached' })
  await page.waitForFunction(() => document.querySelector('[data-testid=alert-classification]').textContent.includes('Security testing'))
  await at('alert-timeline').click()
  await at('timeline-row').first().waitFor()
  assert.match(page.url(), /at=/)
})

test('queues: searched, ordered, by assignee; resolving says what else it did; nothing is overwritten unseen', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/incidents?status=Open&assignee=-`)
  await page.waitForFunction(() => document.querySelectorAll('[data-testid=incident-row]').length === 2)
  await at('sort-severity').click()
  await at('sort-severity').click()
  await page.waitForFunction(() => document.querySelector('[data-testid=incident-row]').textContent.includes('Medium'))
  await at('queue-search').fill('enumeration')
  await page.waitForFunction(() => document.querySelectorAll('[data-testid=incident-row]').length === 1)
  await at('incident-title').click()
  await at('manage').click()
  await at('manage-mine').click()
  server.state.incidents[1].assignee = 'suzuki'
  await at('manage-save').click()
  await at('manage-panel').getByRole('alert').waitFor()
  assert.equal(server.state.incidents[1].assignee, 'suzuki')
  await page.keyboard.press('Escape')
  await at('manage-panel').waitFor({ state: 'detached' })
  await page.getByLabel('Status').selectOption('Resolved')
  await at('toast').filter({ hasText: '2 of its alerts were resolved too' }).waitFor()
})

test('alert: a reader looks and changes nothing', async () => {
  await begin({ role: 'reader' })
  await enter()
  await page.goto(`${server.url}/alerts/a2`)
  await at('alert-status').waitFor()
  for (const id of ['alert-status', 'manage']) assert.ok(await at(id).isDisabled(), id)
  assert.equal(await at('comment-add').count(), 0)
})

test('detection tests: one arrives, one explains itself', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/devices/d1?tab=tests`)
  await at('test-run-eicar').click()
  await page.locator('[data-testid=test-result][data-outcome=passed]').waitFor()
  assert.equal(await page.locator('[data-testid^=test-stage-][data-state=ok]').count(), 6)
  await page.goto(`${server.url}/devices/d2?tab=tests`)
  await at('test-run-eicar').click()
  await page.locator('[data-testid=test-result][data-outcome=explained]').getByText('no real-time protection: operation not permitted').waitFor()
  // Somebody runs one on the host itself.
  server.state.runs.unshift({ ...server.state.runs[0], id: 'r9', test: 'newer' })
  server.push('run', 'r9')
  await at('test-result').nth(1).waitFor()
})

test('pages follow what happens, with the stream and without it', async () => {
  await begin()
  await enter()
  await page.goto(`${server.url}/alerts`)
  await at('alert-row').first().waitFor()
  const add = (id, title) => server.state.alerts.unshift({ ...server.state.alerts[0], id, title })
  add('a90', "'First_Threat' malware was detected")
  server.push('alert', 'a90')
  await page.getByText("'First_Threat' malware was detected").waitFor({ timeout: 3_000 })
  server.state.streamOff = true
  for (const stream of server.state.streams) stream.destroy()
  add('a91', "'Second_Threat' malware was detected")
  await page.getByText("'Second_Threat' malware was detected").waitFor({ timeout: 14_000 })
})

test('a control plane that fails says so, and the page can try again', async () => {
  await begin()
  await enter()
  server.state.failures.push([/GET \/api\/v1\/alerts/, 503, 'unavailable', 'the event store is starting'])
  await at('nav-alerts').click()
  await at('failure').waitFor()
  assert.match(await at('failure').innerText(), /event store is starting/)
  server.state.failures.length = 0
  await at('failure').getByRole('button').click()
  await at('alert-row').first().waitFor()
})

test('what the network drops is read once more, and written once', async () => {
  await begin()
  await enter()
  let reads = 0
  await page.route('**/api/v1/alerts?*', (route) => (++reads === 1 ? route.abort('connectionreset') : route.continue()))
  await at('nav-alerts').click()
  await at('alert-row').first().waitFor()
  assert.ok(reads >= 2, `${reads} reads`)
  const { id, environment } = server.state.connectors[0]
  let writes = 0
  await page.route(`**/api/v1/connectors/${id}`, (route) => (route.request().method() === 'PUT' && ++writes ? route.abort('connectionreset') : route.continue()))
  await page.goto(`${server.url}/environments/${environment}/connectors/${id}`)
  await at('connector-name').fill('Another rack')
  await at('connector-save').click()
  await at('connector-error').waitFor()
  assert.equal(writes, 1)
  assert.equal(await at('connector-name').inputValue(), 'Another rack')
})

test('a session that ended leads to sign-in and back', async () => {
  await begin()
  await enter()
  server.state.sessions.clear()
  await at('nav-incidents').click()
  await at('signin-name').fill('admin')
  await at('signin-password').fill(password)
  await at('signin-submit').click()
  await at('incident-row').first().waitFor()
})
