import { Badge, Button, makeStyles, Menu, MenuItem, MenuList, MenuPopover, MenuTrigger, Text, tokens } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { PlugConnectedRegular } from '@fluentui/react-icons/svg/plug-connected'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { connectorKinds, listConnectors, syncConnector, type Connector } from '../../../api/connectors'
import { useData } from '../../../api/use'
import { useMay } from '../../../app/session'
import { useNotify } from '../../../app/toast'
import { useFormat, useName } from '../../../i18n/names'
import { RouteLink } from '../../../ui/links'
import { Ago, Status } from '../../../ui/marks'
import { Panel } from '../../../ui/Panel'
import { PlainTable } from '../../../ui/PlainTable'
import { useReason } from '../../../ui/reasons'
import { Empty, Failure, Loading, useErrorText } from '../../../ui/states'
import { machinesAt } from '../at'

const useStyles = makeStyles({
  dim: { color: tokens.colorNeutralForeground3 },
  lines: { display: 'flex', flexDirection: 'column', gap: '2px', alignItems: 'flex-start' },
  ways: { display: 'flex', flexWrap: 'wrap', justifyContent: 'center', gap: tokens.spacingHorizontalS },
})

/** The ways to the machines of an environment. */
export default function ConnectorsTab({ environment, toTokens }: { environment: string; toTokens: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const reason = useReason()
  const navigate = useNavigate()
  const mayChange = useMay('plans.manage')
  const maySync = useMay('devices.manage')
  const [syncing, setSyncing] = useState('')
  const { data, error, reload } = useData(`connectors ${environment}`, (signal) => listConnectors(environment, signal), ['connector', 'machine'], 1_000)
  const at = (connector: string) => `/environments/${environment}/connectors/${connector}`
  const sync = (c: Connector) => {
    setSyncing(c.id)
    syncConnector(c.id).then(
      (done) => notify('success', t('connector.synced', { name: c.name }), t('connector.syncedText', { known: format.number(done.known), added: format.number(done.added), gone: format.number(done.gone) })),
      (e: unknown) => notify('error', t('connector.notSynced', { name: c.name }), errorText(e)),
    ).finally(() => { setSyncing(''); reload() })
  }
  const create = (
    <Menu>
      <MenuTrigger disableButtonEnhancement>
        <Button appearance="primary" icon={<AddRegular />} disabled={!mayChange} data-testid="connector-create">{t('connector.create')}</Button>
      </MenuTrigger>
      <MenuPopover>
        <MenuList>
          {connectorKinds.map((kind) => (
            <MenuItem key={kind} data-testid={`connector-create-${kind}`} subText={kind === 'ssh' ? undefined : t('connector.unverified')} onClick={() => void navigate(`${at('new')}?kind=${kind}`)}>
              {name('connectorKind', kind)}
            </MenuItem>
          ))}
        </MenuList>
      </MenuPopover>
    </Menu>
  )
  if (!data) return error ? <Failure error={error} retry={reload} /> : <Loading />
  if (data.items.length === 0) {
    return (
      <Empty
        icon={<PlugConnectedRegular />} title={t('connector.none')}
        action={<div className={styles.ways}>{create}<Button onClick={toTokens} data-testid="connectors-tokens">{t('connector.toTokens')}</Button></div>}
      >
        {t('connector.noneText')}
      </Empty>
    )
  }
  return (
    <Panel title={t('connector.many')} actions={create}>
      <Text className={styles.dim}>{t('connector.intro')}</Text>
      <PlainTable
        label={t('connector.many')} items={data.items} rowId={(c) => c.id} rowTestid="connector-row"
        columns={[
          { id: 'name', header: t('connector.name'), cell: (c) => <RouteLink to={at(c.id)} data-testid="connector-open">{c.name}</RouteLink> },
          {
            id: 'kind', header: t('connector.kind'), tight: true, cell: (c) => (
              <span className={styles.lines}>{name('connectorKind', c.kind)}{c.verified && <Badge appearance="outline" color="warning">{t('connector.unverified')}</Badge>}</span>
            ),
          },
          { id: 'credential', header: t('connector.credential'), cell: (c) => (c.ssh ? name('credential', c.ssh.credential) : name('credential', 'cloud')) },
          { id: 'machines', header: t('environment.machines'), tight: true, cell: (c) => <RouteLink to={machinesAt(environment, { connector: c.id })} title={t('environment.machines')} data-testid="connector-machines">{format.number(c.machines)}</RouteLink> },
          { id: 'sync', header: t('connector.lastSync'), tight: true, cell: (c) => (c.lastSync ? <Ago time={c.lastSync} /> : <span className={styles.dim}>{t('connector.never')}</span>) },
          {
            id: 'state', header: t('connector.state'), cell: (c) => (c.error
              ? <span className={styles.lines}><Status tone="bad">{reason(c.error).text}</Status>{c.error.detail && <Text size={200}>{c.error.detail}</Text>}<Text size={200} className={styles.dim}>{reason(c.error).remedy}</Text></span>
              : <Status tone="good">{t('connector.fine')}</Status>),
          },
          { id: 'acts', header: t('connector.action'), tight: true, cell: (c) => <Button size="small" disabled={!maySync} disabledFocusable={syncing !== ''} onClick={() => sync(c)} data-testid="connector-sync">{syncing === c.id ? t('connector.syncing') : t('connector.sync')}</Button> },
        ]}
      />
    </Panel>
  )
}
