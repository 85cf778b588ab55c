import { FluentProvider } from '@fluentui/react-components'
import { createBrowserRouter, RouterProvider } from 'react-router'
import { PreferencesProvider, usePreferences } from './preferences'
import { pages } from './pages'
import { SessionProvider } from './session'
import { RequireSession } from './RequireSession'
import { SignIn } from './SignIn'
import { darkTheme, lightTheme } from './theme'
import { ToastProvider } from './toast'
import { NotFound } from '../pages/NotFound'
import { Broken } from './Broken'

const router = createBrowserRouter([
  {
    errorElement: <Broken />,
    children: [
      { path: '/signin', element: <SignIn /> },
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
