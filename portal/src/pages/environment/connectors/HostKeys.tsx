import { Button, makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { acceptHostKey, listHostKeys, type HostKey } from '../../../api/connectors'
import { usePaged } from '../../../api/use'
import { useMay } from '../../../app/session'
import { useNotify } from '../../../app/toast'
import { useFormat } from '../../../i18n/names'
import { Ago } from '../../../ui/marks'
import { Panel } from '../../../ui/Panel'
import { PlainTable } from '../../../ui/PlainTable'
import { Failure, Loading, useErrorText } from '../../../ui/states'
import { Confirm } from '../Confirm'

const useStyles = makeStyles({
  dim: { color: tokens.colorNeutralForeground3 },
  mono: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, overflowWrap: 'anywhere' },
  lines: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXS, alignItems: 'flex-start' },
})

type Row = HostKey & { id: string }

/** The keys that hosts are known by. A host that shows another one waits for a decision. */
export function HostKeys({ connector }: { connector: string }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('plans.manage')
  const [accepting, setAccepting] = useState<Row>()
  const list = usePaged<Row>(`host keys ${connector}`, async (page, signal) => {
    const keys = await listHostKeys(connector, page, signal)
    return { ...keys, items: keys.items.map((k) => ({ ...k, id: k.host })) }
  }, [`connector:${connector}`, 'machine'])
  const changed = list.items.filter((k) => k.offered).length
  const accept = (key: Row) => {
    setAccepting(undefined)
    if (!key.offered) return
    acceptHostKey(connector, key.host, key.offered.fingerprint).then(
      () => notify('success', t('connector.accepted', { host: key.host })),
      (e: unknown) => notify('error', t('connector.notAccepted', { host: key.host }), errorText(e)),
    ).finally(list.reload)
  }
  const shown = (algorithm: string, fingerprint: string) => <span className={styles.mono}>{algorithm} {fingerprint}</span>
  return (
    <Panel title={t('connector.hostKeysTitle')}>
      {list.loading ? <Loading /> : list.error && list.items.length === 0 ? <Failure error={list.error} retry={list.reload} /> : list.items.length === 0 ? <Text className={styles.dim}>{t('connector.noHostKeys')}</Text> : (
        <>
          {changed > 0 && <MessageBar intent="warning" layout="multiline" data-testid="keys-changed"><MessageBarBody>{t('connector.keysChanged', { count: changed, number: format.number(changed) })}</MessageBarBody></MessageBar>}
          <PlainTable
            label={t('connector.hostKeysTitle')} items={list.items} rowId={(k) => k.host} rowTestid="host-key-row"
            columns={[
              { id: 'host', header: t('connector.host'), cell: (k) => k.host },
              {
                id: 'key', header: t('connector.fingerprint'), cell: (k) => (
                  <span className={styles.lines}>
                    {shown(k.algorithm, k.fingerprint)}
                    {k.offered && <><Text>{t('connector.offers')} <Ago time={k.offered.at} /></Text>{shown(k.offered.algorithm, k.offered.fingerprint)}</>}
                  </span>
                ),
              },
              { id: 'seen', header: t('connector.pinned'), tight: true, cell: (k) => <Ago time={k.firstSeen} /> },
              { id: 'act', header: t('connector.action'), tight: true, cell: (k) => k.offered && <Button size="small" disabled={!may} onClick={() => setAccepting(k)} data-testid="host-key-accept">{t('connector.accept')}</Button> },
            ]}
          />
          {list.hasMore && <Button onClick={list.more} style={{ alignSelf: 'flex-start' }}>{t('connector.moreKeys', { count: list.total - list.items.length, number: format.number(list.total - list.items.length) })}</Button>}
        </>
      )}
      {accepting?.offered && (
        <Confirm
          title={t('connector.acceptTitle', { host: accepting.host })} text={t('connector.acceptText', { fingerprint: accepting.offered.fingerprint })} act={t('connector.acceptNow')}
          confirm={() => accept(accepting)} close={() => setAccepting(undefined)}
        />
      )}
    </Panel>
  )
}
