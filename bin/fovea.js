#!/usr/bin/env node
// JavaScript that an older Node can read, so that it gets far enough to say what it lacks.
const needed = [22, 13]
const [major, minor] = process.versions.node.split('.').map(Number)

if (major < needed[0] || (major === needed[0] && minor < needed[1])) {
  console.error(`fovea: expected Node.js ${needed.join('.')} or newer, received ${process.versions.node}`)
  process.exitCode = 2
} else {
  import('node:fs').then(({ existsSync }) => {
    const built = new URL('../dist/cli/main.js', import.meta.url)
    if (existsSync(built)) return import(built.href)
    if (process.features.typescript) return import(new URL('../src/cli/main.ts', import.meta.url).href)
    console.error('fovea: expected the built package (npm run build), received its TypeScript source only')
    process.exitCode = 1
  })
}
