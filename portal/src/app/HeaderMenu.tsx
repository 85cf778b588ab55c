import type { ButtonProps } from '@fluentui/react-components'
import { cloneElement, useState, type ComponentType, type ReactElement } from 'react'

interface Props {
  /** Loads the menu. Its code is large beside its use, so it comes with the first one. */
  load: () => Promise<{ default: ComponentType<{ trigger: ReactElement<ButtonProps> }> }>
  trigger: ReactElement<ButtonProps>
}

/** A button of the header whose menu is loaded when it is first wanted, and then opens. */
export function HeaderMenu({ load, trigger }: Props) {
  const [Loaded, setLoaded] = useState<ComponentType<{ trigger: ReactElement<ButtonProps> }>>()
  if (Loaded) return <Loaded trigger={trigger} />
  return cloneElement(trigger, {
    'aria-haspopup': 'menu',
    'aria-expanded': false,
    onPointerEnter: () => void load(),
    onClick: () => void load().then((module) => setLoaded(() => module.default)),
  })
}
