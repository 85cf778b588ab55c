import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

export default defineConfig({
  plugins: [react()],
  build: {
    // The control plane embeds this folder; see control/portal.
    outDir: '../control/portal/assets/dist',
    emptyOutDir: true,
    // Everything below hashed/ carries a hash in its name and is cached for ever.
    assetsDir: 'hashed',
    // The policy of the pages allows no data: scripts or fonts, and an inlined
    // file could not be cached on its own.
    assetsInlineLimit: 0,
    target: 'es2023',
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` shows the sources against a running control plane.
    proxy: { '/api': { target: 'https://127.0.0.1:8443', secure: false } },
  },
})
