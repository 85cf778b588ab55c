import { Button } from '@fluentui/react-components'
import { DeleteRegular } from '@fluentui/react-icons/svg/delete'
import { EditRegular } from '@fluentui/react-icons/svg/edit'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { deleteEnvironment } from '../../api/calls'
import type { Environment } from '../../api/types'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useErrorText } from '../../ui/states'
import { Confirm } from './Confirm'
import { EnvironmentDialog } from './EnvironmentDialog'

/** What can be done with an environment as a whole. */
export function EnvironmentActions({ environment, renamed }: { environment: Environment; renamed: () => void }) {
  const { t } = useTranslation()
  const may = useMay('plans.manage')
  const notify = useNotify()
  const navigate = useNavigate()
  const errorText = useErrorText()
  const [asking, setAsking] = useState<'rename' | 'delete'>()
  if (!may) return null
  const remove = () => {
    setAsking(undefined)
    deleteEnvironment(environment.id).then(
      () => {
        notify('success', t('environment.deleted', { name: environment.name }))
        void navigate('/environments')
      },
      (e: unknown) => notify('error', t('environment.notDeleted'), errorText(e)),
    )
  }
  return (
    <>
      <Button appearance="subtle" icon={<EditRegular />} onClick={() => setAsking('rename')} data-testid="environment-rename">{t('environment.rename')}</Button>
      <Button appearance="subtle" icon={<DeleteRegular />} onClick={() => setAsking('delete')} data-testid="environment-delete">{t('environment.delete')}</Button>
      {asking === 'rename' && <EnvironmentDialog environment={environment} saved={() => { setAsking(undefined); renamed() }} close={() => setAsking(undefined)} />}
      {asking === 'delete' && <Confirm title={t('environment.deleteTitle', { name: environment.name })} text={t('environment.deleteText')} act={t('environment.delete')} confirm={remove} close={() => setAsking(undefined)} />}
    </>
  )
}
