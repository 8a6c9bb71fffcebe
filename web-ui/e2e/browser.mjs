// A real browser against a running fleet: signs in, looks, changes something, and sees it reach the nodes.
//
// npm run e2e -- --url http://127.0.0.1:7070 --user admin --password … [--nodes 2] [--screenshots DIR]
import { mkdtempSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const { values: options } = parseArgs({
  options: {
    url: { type: 'string' },
    user: { type: 'string' },
    password: { type: 'string' },
    nodes: { type: 'string', default: '2' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
    screenshots: { type: 'string', default: mkdtempSync(join(tmpdir(), 'awe4lb-console-')) },
  },
});
const { url, user, password, screenshots } = options;
const nodes = Number(options.nodes);
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const browser = await chromium.launch({
  executablePath: options.chromium,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
page.setDefaultTimeout(20_000);

// Whatever the browser complains about is a fault of ours. Two refusals belong here: nobody is signed in yet, and a wrong
// address.
const complaints = [];
page.on('console', (message) => {
  if (message.type() === 'error' && !/status of (401|422) /.test(message.text())) complaints.push(message.text());
});
page.on('pageerror', (error) => complaints.push(String(error)));
await page.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (event) =>
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.target?.outerHTML?.slice(0, 200)}`),
  );
});

let step = 0;
async function look(name) {
  step += 1;
  await page.screenshot({ path: join(screenshots, `${String(step).padStart(2, '0')}-${name}.png`), fullPage: true });
  // In a world of its own: the page's policy lets no foreign script in.
  const found = await evaluateIsolated(`${axe}; axe.run(document, { runOnly: ['wcag2a', 'wcag2aa'] })`);
  const serious = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
  const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(' ')}`);
  assert.deepEqual(told, [], `${name}: what people with other senses meet`);
}

async function evaluateIsolated(source) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
    expression: source,
    contextId: executionContextId,
    awaitPromise: true,
    returnByValue: true,
  });
  await session.detach();
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

async function says(name) {
  console.log(`  ${name}`);
}

async function until(what, holds) {
  const deadline = Date.now() + 20_000;
  let last;
  while (Date.now() < deadline) {
    last = await holds();
    if (last === true) return;
    await page.waitForTimeout(100);
  }
  assert.fail(`${what}: ${JSON.stringify(last)}`);
}

const menu = (name) => page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
const heading = (name) => page.getByRole('heading', { level: 1, name }).waitFor();
const text = (id) => page.getByTestId(id).innerText();

try {
  await says('a wrong password is refused, the right one signs in');
  await page.goto(url);
  await page.getByLabel('User').fill(user);
  await page.getByRole('textbox', { name: 'Password' }).fill('not the password');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('wrong user or password').waitFor();
  await look('sign-in');
  await page.getByRole('textbox', { name: 'Password' }).fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await heading('Overview');

  await says('all nodes are in sync and bytes move');
  await until('nodes in sync', async () => (await text('nodes-in-sync')) === `${nodes} of ${nodes}` || text('nodes-in-sync'));
  const forwarded = () => page.evaluate(async () => (await (await fetch('/api/v1/stats')).json()).totals.bytesOut);
  const before = await forwarded();
  await until('counters are shown', async () => /\d .*B in all/.test(await text('bytes-out')) || text('bytes-out'));
  const shown = await text('bytes-out');
  await until('counters move', async () => (await forwarded()) > before || before);
  await until('counters move in the page', async () => (await text('bytes-out')) !== shown || shown);
  await page.getByRole('img', { name: 'Chart: In, Out' }).locator('canvas').waitFor();
  await look('overview');

  await says('listeners, their rules, and a filter in the address');
  await menu('Listeners');
  await heading('Listeners');
  await page.keyboard.press('/');
  await page.keyboard.type('udp');
  await until('the filter', async () => (await page.getByRole('row').count()) === 2 || page.getByRole('row').count());
  assert.match(page.url(), /filter=udp/);
  await page.getByLabel('Filter listeners').fill('');
  await page.getByRole('link', { name: 'web-tls', exact: true }).click();
  await heading('Listener web-tls');
  await page.getByRole('cell', { name: 'app', exact: true }).waitFor();
  await look('listener');

  await says('a pool is edited in its form, and both nodes run the new revision');
  await menu('Pools');
  await look('pools');
  await page.getByRole('link', { name: 'echo', exact: true }).click();
  await heading('Pool echo');
  await page.getByRole('cell', { name: '127.0.0.1:17007' }).first().waitFor();
  await page.getByRole('button', { name: 'Add a backend' }).click();
  await page.getByLabel('address of new 2').fill('127.0.0.1:99999');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('form').locator('[id$="-error"]').waitFor();
  await look('pool-with-an-error');
  const revision = await page.evaluate(async () => (await (await fetch('/api/v1/revisions?limit=1')).json()).items[0].number);
  await page.getByLabel('address of 127.0.0.1:99999').fill('127.0.0.1:17008');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('table', { name: 'backends', exact: true }).getByText('127.0.0.1:17008').waitFor();
  await menu('Nodes');
  await heading('Nodes');
  for (let node = 1; node <= nodes; node += 1) {
    await until(`node-${node} runs revision ${revision + 1}`, async () => {
      const running = await text(`running-node-${node}`);
      return running.startsWith(`revision ${revision + 1},`) || running;
    });
  }
  await look('nodes');

  await says('a backend is drained and made ready again');
  await menu('Pools');
  await page.getByRole('link', { name: 'web', exact: true }).click();
  const first = page.getByRole('table', { name: 'backends', exact: true }).getByRole('row').filter({ hasText: '127.0.0.1:17001' });
  await first.getByRole('button', { name: 'drain' }).click();
  await first.getByText('drain', { exact: true }).first().waitFor();
  await first.getByRole('button', { name: 'ready' }).click();
  await first.getByRole('button', { name: 'drain' }).waitFor();
  await look('pool');

  await says('an invalid document is told with its lines; a valid one is compared and applied');
  await menu('Configuration');
  await heading('Configuration');
  const editor = page.getByRole('textbox', { name: 'Configuration' });
  await editor.click();
  await page.keyboard.press('Control+End');
  await page.keyboard.type('\nnonsense: true\n');
  await page.getByTestId('errors').getByText(/no field "nonsense"/).waitFor();
  await look('configuration-with-an-error');
  await page.getByRole('button', { name: 'Discard' }).click();
  const yaml = await page.evaluate(async () => (await fetch('/api/v1/config?format=yaml')).text());
  await editor.click();
  await page.keyboard.press('Control+a');
  // Pasted: what the browser itself inserts into an editor over several lines gets styles of its own.
  await editor.evaluate((element, text) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', text);
    element.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  }, yaml.replace('balance: leastConn', 'balance: roundRobin'));
  await page.getByTestId('verdict').getByText('update pool web').waitFor();
  await page.getByRole('button', { name: 'Compare and apply' }).click();
  await page.getByTestId('difference').getByText('roundRobin').first().waitFor();
  await look('compare');
  await page.getByLabel('Message').fill('by the browser test');
  await page.getByRole('button', { name: 'Apply', exact: true }).click();
  await page.getByText(`Revision ${revision + 2}`).first().waitFor();

  await says('the history has it, with its difference');
  await menu('History');
  await page.getByRole('cell', { name: 'by the browser test' }).waitFor();
  await page.getByRole('link', { name: String(revision + 2), exact: true }).click();
  await page.getByTestId('unified').getByText(/roundRobin/).waitFor();
  await look('revision');

  await says('a join token is shown once, with the command');
  await menu('Nodes');
  await page.getByRole('button', { name: 'Add a node' }).click();
  await page.getByText(/^awj_/).waitFor();
  await look('join-token');
  await page.keyboard.press('Escape');

  await says('the sources of a pool and what they found, as they change');
  const write = (path, body) =>
    page.evaluate(async ([path, body]) => {
      const headers = { 'content-type': 'application/json' };
      return (await fetch(path, { method: 'PUT', headers, body: JSON.stringify(body) })).status;
    }, [path, body]);
  assert.equal(await write('/api/v1/pools/told', { name: 'told', discovery: [{ id: 'deploy', type: 'push' }] }), 201);
  await menu('Pools');
  await page.getByRole('link', { name: 'told', exact: true }).click();
  await heading('Pool told');
  const source = page.getByRole('table', { name: 'sources' }).getByRole('row').filter({ hasText: 'deploy' });
  await source.getByText('pending').waitFor();
  assert.equal(await write('/api/v1/pools/told/sources/deploy', ['127.0.0.1:17001', { host: 5 }]), 200);
  await source.getByText('ok', { exact: true }).waitFor();
  await source.getByText('1 items are no backends').waitFor();
  const found = page.getByRole('table', { name: 'backends', exact: true }).getByRole('row').filter({ hasText: '127.0.0.1:17001' });
  await found.getByText('discovered').waitFor();
  assert.equal(await write('/api/v1/pools/told/sources/deploy', []), 422);
  await source.getByText('failing').waitFor();
  await source.getByText(/minBackends/).waitFor();
  await look('sources');

  await says('a certificate is issued for development, and imported ones are checked first');
  await menu('Certificates');
  await heading('Certificates');
  await page.getByRole('link', { name: 'New certificate' }).click();
  await heading('New certificate');
  await look('new-certificate');
  await page.getByRole('tab', { name: 'For development' }).click();
  await page.getByRole('textbox', { name: 'Name', exact: true }).fill('dev');
  await page.getByRole('textbox', { name: 'Names' }).fill('dev.test 10.0.0.7');
  await look('issue');
  await page.getByRole('button', { name: 'Issue' }).click();
  await heading('Certificate dev');
  await page.getByText('valid', { exact: true }).waitFor();
  await look('certificate');
  const fingerprint = () => page.getByRole('table', { name: /^chain/ }).locator('code').last().innerText();
  const issued = await fingerprint();
  const made = await page.evaluate(async () => {
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify({ ca: 'self-signed', domains: ['dev.test'], deliver: 'return' });
    return (await fetch('/api/v1/certificates/x:issue', { method: 'POST', headers, body })).json();
  });
  await page.locator('input[type=file]').setInputFiles({ name: 'dev.pem', mimeType: 'text/plain', buffer: Buffer.from(made.chain + made.key) });
  await page.getByRole('button', { name: 'Check' }).click();
  await page.getByText(/the one before was also for 10.0.0.7/).waitFor();
  await look('import');
  await page.getByRole('button', { name: 'Replace' }).click();
  await page.getByText('dev is stored').waitFor();
  await until('the new one is shown', async () => (await fingerprint()) !== issued || fingerprint());

  await says('an account and a certificate whose authority is not there: what failed is told');
  await menu('ACME accounts');
  await heading('ACME accounts');
  await page.getByRole('textbox', { name: 'Name', exact: true }).fill('nobody');
  await page.getByLabel('Authority', { exact: true }).selectOption({ label: 'another' });
  await page.getByRole('textbox', { name: 'Directory' }).fill('https://127.0.0.1:1/directory');
  await page.getByRole('checkbox').check();
  await page.getByRole('button', { name: 'Make the account' }).click();
  await page.getByRole('region', { name: 'account nobody' }).getByText('not registered yet').waitFor();
  await menu('Certificates');
  await page.getByRole('link', { name: 'New certificate' }).click();
  await page.getByRole('textbox', { name: 'Name', exact: true }).fill('auto');
  await page.getByRole('textbox', { name: 'Domains' }).fill('auto.test');
  await page.getByRole('button', { name: 'Order' }).click();
  await heading('Certificate auto');
  await page.getByRole('status', { name: 'last failure' }).getByText(/awe4lb:unreachable/).waitFor();
  await until('it is tried again', async () => /^failed: .*; is tried again/.test(await text('next')) || text('next'));
  await look('certificate-that-fails');
  await menu('Certificates');
  await page.getByRole('row').filter({ hasText: 'auto' }).getByText('placeholder').waitFor();
  await look('certificates');
  await menu('ACME accounts');
  await page.getByRole('region', { name: 'account nobody' }).getByText('failing').waitFor();
  await look('accounts');

  await says('what is not there says so; signing out ends it');
  await page.goto(`${url}/nowhere`);
  await heading('Not found');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('textbox', { name: 'Password' }).waitFor();

  assert.deepEqual(complaints, [], 'the browser has nothing to complain about');
  console.log(`browser: all well; pictures in ${screenshots}`);
} catch (error) {
  await page.screenshot({ path: join(screenshots, 'failed.png'), fullPage: true }).catch(() => {});
  console.error(error);
  if (complaints.length > 0) console.error('the browser complains:', complaints);
  console.error(`pictures in ${screenshots}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
