import { Link } from '@fluentui/react-components'
import type { MouseEvent, ReactNode } from 'react'
import { useHref, useLinkClickHandler, type To } from 'react-router'

interface Props {
  to: To
  children: ReactNode
  className?: string
  title?: string
  'data-testid'?: string
}

/** A Fluent link to a room of the portal. */
export function RouteLink({ to, children, ...rest }: Props) {
  const href = useHref(to)
  const click = useLinkClickHandler<HTMLAnchorElement>(to)
  return <Link {...rest} href={href} onClick={(event) => click(event as MouseEvent<HTMLAnchorElement>)}>{children}</Link>
}
