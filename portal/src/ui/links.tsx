import { Link, type LinkProps } from '@fluentui/react-components'
import type { MouseEvent, ReactNode } from 'react'
import { useHref, useLinkClickHandler, type To } from 'react-router'

/** A Fluent link to a room of the portal. */
export function RouteLink({ to, children, ...rest }: { to: To; children: ReactNode } & Omit<LinkProps, 'href' | 'as' | 'appearance'> & { 'data-testid'?: string }) {
  const href = useHref(to)
  const click = useLinkClickHandler<HTMLAnchorElement>(to)
  return <Link {...rest} href={href} onClick={(event) => click(event as MouseEvent<HTMLAnchorElement>)}>{children}</Link>
}
