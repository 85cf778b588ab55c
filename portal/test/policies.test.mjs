// Policies and groups: what is typed is saved, and nothing is lost when it
// cannot be.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { suite } from './browser.mjs'

let server
let page
const entered = suite()
async function begin(path, options) {
  ({ server, page } = await entered(path, options))
}
const at = (id) => page.getByTestId(id)

test('a policy is made, assigned and saved, and changed', async () => {
  await begin('/policies')
  await at('policy-create').click()
  await at('policy-create-exclusions').click()
  await at('policy-name').fill('Build hosts')
  await at('assign-choice').selectOption({ label: 'Group Databases' })
  await at('assign-add').click()
  await at('configure-exclusions').click()
  await at('exclusion-add').click()
  await at('exclusion-value').fill('/srv/build')
  await at('policy-save').click()
  await page.waitForURL(/\/policies\/n4$/)
  const made = server.state.policies.at(-1)
  assert.deepEqual(made.settings, { exclusions: [{ type: 'folder', value: '/srv/build', scope: 'epp' }] })
  assert.deepEqual(made.assignments, [{ kind: 'group', id: 'g1' }])
  await at('exclusion-value').fill('/srv/builds')
  await at('configure-exclusionsAdminOnly').click()
  await at('value-exclusionsAdminOnly').selectOption('true')
  await at('policy-save').click()
  await page.waitForFunction(() => document.querySelector('[data-testid=policy-save]').getAttribute('aria-disabled') === 'true')
  assert.deepEqual(server.state.policies.at(-1).settings, { exclusions: [{ type: 'folder', value: '/srv/builds', scope: 'epp' }], exclusionsAdminOnly: true })
})

test('a change by somebody else is not overwritten unseen, and what was typed stays', async () => {
  await begin('/policies/p1')
  await at('value-maximumOnDemandScanThreads').fill('8')
  Object.assign(server.state.policies[0], { version: 9, description: 'changed elsewhere' })
  await at('policy-save').click()
  await at('policy-conflict').waitFor()
  assert.equal(await at('value-maximumOnDemandScanThreads').inputValue(), '8')
  await at('policy-keep').click()
  await at('policy-save').click()
  await page.waitForFunction(() => document.querySelector('[data-testid=policy-save]').getAttribute('aria-disabled') === 'true')
  assert.equal(server.state.policies[0].settings.maximumOnDemandScanThreads, 8)
})

test('what the control plane refuses stands at its setting', async () => {
  await begin('/policies/p1')
  await at('value-maximumOnDemandScanThreads').fill('99')
  await at('policy-save').click()
  await at('setting-maximumOnDemandScanThreads').getByText('want 1 to 64').waitFor()
  await at('policy-discard').click()
  assert.equal(await at('value-maximumOnDemandScanThreads').inputValue(), '4')
})

test('a policy is deleted after a question', async () => {
  await begin('/policies/p3')
  await at('policy-delete').click()
  await at('confirm').click()
  await page.waitForURL(/\/policies$/)
  await at('policy-row').first().waitFor()
  assert.equal(server.state.policies.length, 2)
})

test('a reader looks and changes nothing', async () => {
  await begin('/policies/p1', { role: 'reader' })
  await at('value-maximumOnDemandScanThreads').waitFor()
  assert.ok(await at('value-maximumOnDemandScanThreads').isDisabled())
  assert.equal(await at('policy-delete').count(), 0)
})

test('a group is made, changed and deleted', async () => {
  await begin('/groups')
  // A dialog that closes gives the focus back to what opened it.
  await at('group-create').click()
  await at('group-name').waitFor()
  await page.keyboard.press('Escape')
  await page.waitForFunction(() => document.activeElement?.dataset.testid === 'group-create')
  await page.keyboard.press('Enter')
  await at('group-name').fill('Web hosts')
  await at('group-match').fill('web-*')
  await at('group-save').click()
  await page.getByText('web-*').waitFor()
  assert.deepEqual(server.state.groups.at(-1).match, { name: 'web-*' })
  await at('group-edit').last().click()
  await at('group-match').fill('www-*')
  await at('group-save').click()
  await page.getByText('www-*').waitFor()
  await at('group-delete').last().click()
  await at('confirm').click()
  await page.getByText('www-*').waitFor({ state: 'detached' })
  assert.equal(server.state.groups.length, 2)
})
