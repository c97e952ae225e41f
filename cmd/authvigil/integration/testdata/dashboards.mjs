// dashboards.mjs FILE...: judges dashboards by the types that Grafana publishes (@grafana/schema): a key that it does not know, or
// a value that it does not take, is an error with its line. Enumerations of the types are compared by value, because JSON has values.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

const types = readFileSync('node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts', 'utf8')
  .replace(/export declare enum (\w+) \{([^}]*)\}/g, (text, name, body) => {
    const values = Array.from(body.matchAll(/=\s*("[^"]*"|-?\d+)/g), (match) => match[1]);
    return values.length > 0 ? `export type ${name} = ${values.join(' | ')};` : text;
  });
const folder = mkdtempSync('./.dashboards-');
let findings = 0;
try {
  writeFileSync(join(folder, 'types.d.ts'), types);
  for (const file of process.argv.slice(2)) {
    const path = join(folder, 'dashboard.ts');
    writeFileSync(path, `import type { Dashboard } from './types';\nexport const dashboard: Partial<Dashboard> = ${readFileSync(file, 'utf8')};\n`);
    const program = ts.createProgram([path], { noEmit: true, strict: false, skipLibCheck: true, moduleResolution: ts.ModuleResolutionKind.Node10 });
    for (const d of ts.getPreEmitDiagnostics(program)) {
      if (!d.file?.fileName.endsWith('dashboard.ts')) continue;
      findings++;
      const { line } = d.file.getLineAndCharacterOfPosition(d.start);
      console.log(`${file}:${line}: ${ts.flattenDiagnosticMessageText(d.messageText, '\n')}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
process.exit(findings > 0 ? 1 : 0);
