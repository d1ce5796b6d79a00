/** Makes the optional peer packages ordinary dependencies in package.json, for an image that serves every set-up. */
import { readFileSync, writeFileSync } from 'node:fs';

const manifest = JSON.parse(readFileSync('package.json', 'utf8'));
manifest.dependencies = { ...manifest.dependencies, ...manifest.peerDependencies };
for (const name of Object.keys(manifest.peerDependencies)) delete manifest.devDependencies[name];
delete manifest.peerDependencies;
delete manifest.peerDependenciesMeta;
writeFileSync('package.json', `${JSON.stringify(manifest, null, 2)}\n`);
