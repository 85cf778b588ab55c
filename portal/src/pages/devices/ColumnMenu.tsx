import { Menu, MenuDivider, MenuItem, MenuItemCheckbox, MenuList, MenuPopover, MenuTrigger, type ButtonProps } from '@fluentui/react-components'
import type { ReactElement } from 'react'
import { useTranslation } from 'react-i18next'
import type { DeviceColumn } from './columns'

interface Props {
  all: DeviceColumn[]
  chosen: DeviceColumn[]
  choose: (ids: string[] | undefined) => void
  trigger: ReactElement<ButtonProps>
}

/** Which columns to show. */
export default function ColumnMenu({ all, chosen, choose, trigger }: Props) {
  const { t } = useTranslation()
  return (
    <Menu
      defaultOpen checkedValues={{ column: chosen.map((c) => c.id) }}
      onCheckedValueChange={(_, { checkedItems }) => choose(checkedItems)}
    >
      <MenuTrigger disableButtonEnhancement>{trigger}</MenuTrigger>
      <MenuPopover style={{ maxHeight: '70vh', overflowY: 'auto' }}>
        <MenuList data-testid="column-list">
          {all.slice(1).map((c) => <MenuItemCheckbox key={c.id} name="column" value={c.id} data-testid={`column-${c.id}`}>{c.header}</MenuItemCheckbox>)}
          <MenuDivider />
          <MenuItem onClick={() => choose(undefined)} data-testid="column-reset">{t('inventory.usualColumns')}</MenuItem>
        </MenuList>
      </MenuPopover>
    </Menu>
  )
}
