// Users, tokens, the audit log and notifications: what is chosen is done, a
// secret is shown once, and who may not see these pages is told so.
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

test('a user is made, gets another role, a new password, and goes', async () => {
  await begin('/settings/users')
  await at('user-create').click()
  await at('user-name').fill('tanaka')
  await at('user-role').selectOption('operator')
  await at('user-save').click()
  assert.match(await at('secret').innerText(), /abcde-fghij/)
  await at('secret-done').click()
  await at('role-tanaka').selectOption('reader')
  await page.getByText('tanaka now has the role Reader').waitFor()
  assert.equal(server.state.users.at(-1).role, 'reader')
  await at('user-reset').last().click()
  await at('confirm').click()
  assert.match(await at('secret').innerText(), /zyxwv-utsrq/)
  await at('secret-done').click()
  await at('user-delete').last().click()
  await at('confirm').click()
  await at('role-tanaka').waitFor({ state: 'detached' })
  assert.equal(server.state.users.length, 3)
  assert.ok(await at('role-admin').isDisabled(), 'nobody takes the role from themselves')
})

test('a name that is taken is said, and what was typed stays', async () => {
  await begin('/settings/users')
  await at('user-create').click()
  await at('user-name').fill('sato')
  await at('user-save').click()
  await at('user-dialog').getByText('there is already a user named sato').waitFor()
  assert.equal(await at('user-name').inputValue(), 'sato')
})

test('a token is shown once and taken away', async () => {
  await begin('/settings/tokens')
  await at('api-token-create').click()
  await at('api-token-label').fill('Inventory')
  await at('api-token-save').click()
  assert.match(await at('secret').innerText(), /^kma1\./)
  await at('secret-done').click()
  assert.equal(await at('api-token-row').count(), 3)
  await at('api-token-delete').last().click()
  await at('confirm').click()
  await page.getByText('Inventory', { exact: true }).waitFor({ state: 'detached' })
  assert.equal(server.state.apiTokens.length, 2)
})

test('the audit log is filtered by its address, and shows what changed', async () => {
  await begin('/settings/audit?action=plan.change&actor=sato')
  await at('audit-row').first().waitFor()
  for (const text of await at('audit-row').allInnerTexts()) assert.match(text, /sato[\s\S]*Changed a plan/)
  await at('audit-open').first().click()
  await at('audit-panel').getByText('"tier": "P1"').waitFor()
  assert.equal(await at('audit-panel').getByRole('link', { name: 'Tokyo data centre' }).getAttribute('href'), '/environments/e1')
})

test('a notification is made, refused with the reason, tested and changed', async () => {
  await begin('/settings/notifications')
  await at('notification-create').click()
  await at('notification-name').fill('Chat')
  await at('notification-url').fill('https://chat.example.net/hook')
  await at('notification-secret').fill('short')
  await at('notification-save').click()
  await at('notification-error').getByText('at least 16 characters').waitFor()
  assert.equal(await at('notification-url').inputValue(), 'https://chat.example.net/hook')
  await at('notification-secret').fill('a key that is long enough')
  await at('notification-save').click()
  await at('notification-dialog').waitFor({ state: 'detached' })
  assert.deepEqual(server.state.notifications.at(-1).target, { url: 'https://chat.example.net/hook' })
  await at('notification-test').nth(1).click()
  await page.getByText('the test message did not arrive').waitFor()
  await at('notification-edit').first().click()
  await at('notification-enabled').click()
  await at('notification-save').click()
  await at('notification-dialog').waitFor({ state: 'detached' })
  assert.equal(server.state.notifications[0].enabled, false)
  assert.equal(server.state.notifications[0].version, 3)
})

test('a reader is told who may see these pages, and the navigation hides them', async () => {
  await begin('/settings/audit', { role: 'reader' })
  await page.getByText('This page is for administrators').waitFor()
  assert.equal(await at('nav-users').count(), 0)
  assert.equal(await at('nav-policies').count(), 1)
})
