// Drives one Chromium page on behalf of a Go program: a JSON request per line
// on standard input, a JSON answer per line on standard output. Playwright
// brings the waiting; the Go side decides what to do and what must be seen.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const [portal, profile, language, scheme] = process.argv.slice(2)
const { chromium } = createRequire(portal + '/package.json')('playwright-core')

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.KOMAINU_CHROMIUM ?? '/usr/bin/chromium-headless-shell',
  headless: true,
  ignoreHTTPSErrors: true, // the control plane's CA is its own
  locale: language,
  colorScheme: scheme,
  viewport: { width: 1440, height: 960 },
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})
const page = context.pages()[0] ?? await context.newPage()
page.setDefaultTimeout(15_000)
const complaints = []
page.on('pageerror', (e) => complaints.push(e.message))

// find takes { testid, text?, within?, nth? } or { role, name, exact? }.
function find(what) {
  const scope = what.within ? page.getByTestId(what.within).first() : page
  let found = what.testid ? scope.getByTestId(what.testid) : scope.getByRole(what.role, { name: what.name, exact: what.exact ?? false })
  if (what.text) found = found.filter({ hasText: what.text })
  return found.nth(what.nth ?? 0)
}

const operations = {
  goto: ({ url }) => page.goto(url).then(() => page.url()),
  reload: () => page.reload().then(() => page.url()),
  url: () => page.url(),
  click: ({ what }) => find(what).click(),
  fill: ({ what, value }) => find(what).fill(value),
  wait: ({ what, state, timeout }) => find(what).waitFor({ state: state ?? 'visible', timeout }),
  text: ({ what }) => find(what).innerText(),
  visible: ({ what }) => find(what).isVisible(),
  disabled: ({ what }) => find(what).isDisabled(),
  checked: ({ what }) => find(what).isChecked(),
  screenshot: ({ path }) => page.screenshot({ path }).then(() => path),
  evaluate: ({ value }) => page.evaluate(value),
  complaints: () => complaints.splice(0),
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  let answer
  try {
    answer = { value: (await operations[request.op](request)) ?? null }
  } catch (e) {
    answer = { error: String(e.message ?? e) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await context.close()
