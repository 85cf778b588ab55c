import type { ButtonProps } from '@fluentui/react-components'
import { cloneElement, useState, type ComponentType, type ReactElement } from 'react'

type Trigger = { trigger: ReactElement<ButtonProps> }

interface Props<P extends object> {
  /** Loads the menu. Its code is large beside its use, so it comes with the first one. */
  load: () => Promise<{ default: ComponentType<P & Trigger> }>
  trigger: ReactElement<ButtonProps>
  /** What else the menu is told. */
  extra?: P
}

/** A button whose menu is loaded when it is first wanted, and then opens. */
export function HeaderMenu<P extends object = object>({ load, trigger, extra }: Props<P>) {
  const [Loaded, setLoaded] = useState<ComponentType<P & Trigger>>()
  if (Loaded) return <Loaded {...(extra ?? ({} as P))} trigger={trigger} />
  return cloneElement(trigger, {
    'aria-haspopup': 'menu',
    'aria-expanded': false,
    onPointerEnter: () => void load(),
    onClick: () => void load().then((module) => setLoaded(() => module.default)),
  })
}
