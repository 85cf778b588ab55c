// What a browser must fetch before the first page stands.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch, open, signIn } from './browser.mjs'
import { start } from './fixture/server.mjs'

let browser
let server
before(async () => {
  [browser, server] = await Promise.all([launch(), start()])
})
after(() => Promise.all([browser.close(), server.close()]))

const limit = 250_000

for (const [path, shows] of [['/', 'incident-row'], ['/devices', 'device-row'], ['/alerts', 'alert-row'], ['/incidents', 'incident-row'], ['/environments', 'environment-row']]) {
  test(`the first load of ${path} is at most 250 kB compressed`, async (t) => {
    const { page, close } = await open(browser)
    await signIn(page, server.url)
    const state = await page.context().storageState()
    await close()
    const context = await browser.newContext({ storageState: state })
    const fresh = await context.newPage()
    server.state.sent.clear()
    await fresh.goto(server.url + path)
    await fresh.getByTestId(shows).first().waitFor()
    const total = [...server.state.sent.values()].reduce((sum, n) => sum + n, 0)
    t.diagnostic(`${(total / 1000).toFixed(1)} kB in ${server.state.sent.size} files`)
    assert.ok(total <= limit, `${total} bytes`)
    await context.close()
  })
}
