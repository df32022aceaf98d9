// Validates docs/platform/asyncapi.yaml with AsyncAPI's own parser. Exit code 0: valid; 1: not; 2: could not be read.
// Usage: node check.mjs [FILE]
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { Parser } from '@asyncapi/parser';

const SEVERITIES = ['error', 'warning', 'information', 'hint'];
const here = path.dirname(fileURLToPath(import.meta.url));
const file = path.resolve(process.argv[2] ?? path.join(here, '../../docs/platform/asyncapi.yaml'));

let text;
try {
  text = await readFile(file, 'utf8');
} catch (error) {
  console.error(`${file} cannot be read: ${error.message}`);
  process.exit(2);
}

// `source` lets the parser follow the references to schemas/*.json beside the document.
const { document, diagnostics } = await new Parser().parse(text, { source: file });
let errors = 0;
for (const found of diagnostics) {
  const { line, character } = found.range.start;
  const severity = SEVERITIES[found.severity] ?? 'error';
  if (severity === 'error') errors += 1;
  console.error(`${file}:${line + 1}:${character + 1}: ${severity}: ${found.message} (${found.code})`);
}
if (errors > 0 || document === undefined) {
  console.error(`${file}: ${errors} errors`);
  process.exit(1);
}

// A reference that leads nowhere useful would pass as an empty schema: each message must have properties.
for (const message of document.allMessages()) {
  const payload = message.payload();
  if (payload === undefined || Object.keys(payload.properties() ?? {}).length === 0) {
    console.error(`${file}: the message ${message.id()} has no payload with properties`);
    process.exit(1);
  }
}
console.log(`${file}: valid AsyncAPI ${document.version()}, ${document.channels().all().length} channels`);
