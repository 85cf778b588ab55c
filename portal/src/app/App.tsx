import { FluentProvider } from '@fluentui/react-components'
import { lazy, Suspense } from 'react'
import { createBrowserRouter, RouterProvider } from 'react-router'
import { PreferencesProvider, usePreferences } from './preferences'
import { pages } from './pages'
import { SessionProvider } from './session'
import { RequireSession } from './RequireSession'
import { darkTheme, lightTheme } from './theme'
import { ToastProvider } from './toast'
import { NotFound } from '../pages/NotFound'
import { Broken } from './Broken'

const SignIn = lazy(() => import('./SignIn'))

const router = createBrowserRouter([
  {
    errorElement: <Broken />,
    children: [
      { path: '/signin', element: <Suspense><SignIn /></Suspense> },
      {
        element: <RequireSession />,
        children: [
          ...pages.map(({ path, Page }) => ({ path, element: <Page />, errorElement: <Broken /> })),
          { path: '*', element: <NotFound /> },
        ],
      },
    ],
  },
])

export function App() {
  return (
    <PreferencesProvider>
      <Themed />
    </PreferencesProvider>
  )
}

function Themed() {
  const { dark } = usePreferences()
  return (
    <FluentProvider theme={dark ? darkTheme : lightTheme} style={{ height: '100%' }}>
      <ToastProvider>
        <SessionProvider>
          <RouterProvider router={router} />
        </SessionProvider>
      </ToastProvider>
    </FluentProvider>
  )
}
