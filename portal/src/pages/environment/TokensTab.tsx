import { Button, makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { KeyRegular } from '@fluentui/react-icons/svg/key'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listTokens, revokeToken } from '../../api/calls'
import type { JoinToken } from '../../api/types'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat } from '../../i18n/names'
import { Ago, Status } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { Empty, Failure, Loading, useErrorText } from '../../ui/states'
import { Confirm } from './Confirm'
import { NewToken } from './NewToken'

const useStyles = makeStyles({
  page: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  dim: { color: tokens.colorNeutralForeground3 },
})

/** Join tokens: what a server shows to be let into the environment. */
export default function TokensTab({ environment, planOff }: { environment: string; planOff: boolean }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('enrolment.manage')
  const [creating, setCreating] = useState(false)
  const [revoking, setRevoking] = useState<JoinToken>()
  const { data, error, reload } = useData(`tokens ${environment}`, (signal) => listTokens(environment, signal), ['device', 'plan'])

  const revoke = (token: JoinToken) => {
    setRevoking(undefined)
    revokeToken(environment, token.id).then(
      () => notify('success', t('token.revokedDone', { label: token.label })),
      (e: unknown) => notify('error', t('token.revokeFailed'), errorText(e)),
    ).finally(reload)
  }
  const create = <Button appearance="primary" icon={<AddRegular />} disabled={!may} onClick={() => setCreating(true)} data-testid="token-create">{t('token.create')}</Button>
  return (
    <div className={styles.page}>
      {planOff && <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('token.planOff')}</MessageBarBody></MessageBar>}
      <Panel title={t('token.title')} actions={data && data.items.length > 0 ? create : undefined}>
        <Text className={styles.dim}>{t('token.intro')}</Text>
        {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
          : data.items.length === 0 ? <Empty icon={<KeyRegular />} title={t('token.none')} action={create}>{t('token.noneText')}</Empty>
            : (
              <PlainTable
                label={t('token.title')} items={data.items} rowId={(token) => token.id} rowTestid="token-row"
                columns={[
                  { id: 'label', header: t('token.label'), cell: (token) => token.label || <span className={styles.dim}>{token.id}</span> },
                  { id: 'state', header: t('token.state'), tight: true, cell: (token) => <TokenState token={token} /> },
                  { id: 'uses', header: t('token.uses'), tight: true, cell: (token) => t('token.usesOf', { uses: format.number(token.uses), max: format.number(token.maxUses) }) },
                  { id: 'created', header: t('token.created'), tight: true, cell: (token) => <Ago time={token.createdAt} /> },
                  { id: 'expires', header: t('token.expires'), tight: true, cell: (token) => <time dateTime={token.expiresAt}>{format.time(token.expiresAt)}</time> },
                  {
                    id: 'revoke', header: t('token.action'), tight: true,
                    cell: (token) => stateOf(token) === 'usable' && <Button size="small" disabled={!may} onClick={() => setRevoking(token)} data-testid="token-revoke">{t('token.revoke')}</Button>,
                  },
                ]}
              />
            )}
      </Panel>
      {creating && <NewToken environment={environment} created={reload} close={() => setCreating(false)} />}
      {revoking && (
        <Confirm title={t('token.revokeTitle', { label: revoking.label || revoking.id })} text={t('token.revokeText')} act={t('token.revoke')} confirm={() => revoke(revoking)} close={() => setRevoking(undefined)} />
      )}
    </div>
  )
}

function stateOf(token: JoinToken): 'usable' | 'revoked' | 'expired' | 'usedUp' {
  if (token.revoked) return 'revoked'
  if (Date.parse(token.expiresAt) <= Date.now()) return 'expired'
  return token.maxUses > 0 && token.uses >= token.maxUses ? 'usedUp' : 'usable'
}

function TokenState({ token }: { token: JoinToken }) {
  const { t } = useTranslation()
  const state = stateOf(token)
  const words = { usable: t('token.usable'), revoked: t('token.revoked'), expired: t('token.expired'), usedUp: t('token.usedUp') }
  return <Status tone={state === 'usable' ? 'good' : 'neutral'}>{words[state]}</Status>
}
