import { LockClosedRegular } from '@fluentui/react-icons/svg/lock-closed'
import type { ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { useMay, useSession, type Permission } from '../../app/session'
import { useName } from '../../i18n/names'
import { Page } from '../../ui/Page'
import { Empty } from '../../ui/states'

/** A page that only some roles may see; the control plane decides again. */
export function AdminsOnly({ permission, title, children }: { permission: Permission; title: string; children: ReactNode }) {
  const { t } = useTranslation()
  const name = useName()
  const session = useSession()
  if (useMay(permission)) return children
  return (
    <Page title={title}>
      <Empty icon={<LockClosedRegular />} title={t('admin.needed')}>{t('admin.neededText', { role: name('userRole', session.role) })}</Empty>
    </Page>
  )
}
