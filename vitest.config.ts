import { defineConfig } from 'vitest/config'

const conditions = ['fovea-source']

export default defineConfig({
  // The package's own name means its sources here: the tests need no build.
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['test/**/*.test.ts'],
    // Engines use all cores: more files at a time would only take turns.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
